use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{Clock, ManualClock, Secret, Timestamp};
use egress::{AddressRules, Bounds, Client, EgressError, Exit, SystemResolver, client_tls};
use exchange::{Courier, ExchangeError, Minter, Order, Token};
use http::{Request, Response};
use providers::{Catalogue, CredentialKind, Settings};
use tokio::sync::Notify;

/// 2026-01-02T03:04:05Z
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_767_323_045_000);

pub(crate) type Answer = Response<Bytes>;
type Script = dyn Fn(&Request<Bytes>) -> Answer + Send + Sync;

/// A provider that is written down in the test.
pub(crate) struct Scripted {
    script: Box<Script>,
    /// Method and address of each request, in order.
    seen: Mutex<Vec<String>>,
    /// Requests wait here while it is there.
    gate: Mutex<Option<Arc<Notify>>>,
    pub(crate) arrived: Notify,
}

impl Scripted {
    pub(crate) fn new(
        script: impl Fn(&Request<Bytes>) -> Answer + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            script: Box::new(script),
            seen: Mutex::default(),
            gate: Mutex::default(),
            arrived: Notify::new(),
        })
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// From now on requests wait until what this gives is notified.
    pub(crate) fn hold(&self) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        *self.gate.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    pub(crate) fn let_go(&self) {
        *self.gate.lock().unwrap() = None;
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl Courier for Scripted {
    async fn send(
        &self,
        request: Request<Bytes>,
        bounds: &Bounds<'_>,
    ) -> Result<Answer, EgressError> {
        let line = format!("{} {}", request.method(), request.uri());
        // What is asked for must be allowed, or the real one would not send it.
        let allowed = bounds.origins.iter().map(domain::Origin::as_str);
        assert!(allowed.into_iter().any(|origin| request.uri().to_string().starts_with(origin)));
        assert!(bounds.within <= Duration::from_secs(10));
        self.seen.lock().unwrap().push(line);
        self.arrived.notify_one();
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        Ok((self.script)(&request))
    }
}

pub(crate) fn json(status: u16, body: impl fmt::Display) -> Response<Bytes> {
    Response::builder().status(status).body(Bytes::from(body.to_string())).unwrap()
}

pub(crate) fn form(request: &Request<Bytes>) -> HashMap<String, String> {
    assert_eq!(request.headers().get("content-type").unwrap(), "application/x-www-form-urlencoded");
    url::form_urlencoded::parse(request.body()).into_owned().collect()
}

/// An order as the broker writes it: the way and the address are the catalogue's.
pub(crate) fn order(slug: &str, kind: CredentialKind, settings: &str, secret: &str) -> Order {
    let catalogue = Catalogue::builtin().unwrap();
    let provider = catalogue.providers().iter().find(|one| one.id().as_str() == slug).unwrap();
    let settings: Settings =
        settings.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect();
    Order {
        minting: provider.minting(kind, &settings).unwrap().unwrap(),
        settings,
        secret: Secret::new(secret.as_bytes().to_vec()),
        lifetime: Duration::from_hours(1),
    }
}

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOW))
}

pub(crate) async fn mint(courier: &Arc<Scripted>, order: &Order) -> Result<Token, ExchangeError> {
    let courier = Arc::clone(courier) as Arc<dyn Courier>;
    Minter::new(courier, clock() as Arc<dyn Clock>, None).mint(order).await
}

/// The real way out, to servers beside the test.
pub(crate) fn at_this_machine() -> Arc<dyn Courier> {
    Arc::new(Client::new(Arc::new(Exit {
        rules: AddressRules::new(vec!["127.0.0.1/32".parse().unwrap()])
            .with_danger_plain_http_to_loopback(true),
        resolver: Arc::new(SystemResolver),
        tls: client_tls(None).unwrap(),
        connect_timeout: Duration::from_secs(5),
    })))
}

pub(crate) fn text(token: &Token) -> &str {
    std::str::from_utf8(token.secret().expose()).unwrap()
}

/// What an error is about, in a word, once it is sure that it quotes none of these.
pub(crate) fn word(error: &ExchangeError, secrets: &[&str]) -> String {
    let shown = format!("{error} {error:?}");
    for secret in secrets {
        assert!(!shown.contains(secret), "{shown}");
    }
    error.verdict().as_str().to_owned()
}
