use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::Clock;
use hyper::{Method, header::HeaderValue};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{Mutex, OnceCell, watch},
    task::JoinSet,
    time::sleep,
};
use zeroize::Zeroizing;

use super::http::{Http, Refusal};
use crate::{
    KmsError, KmsOpenError, TransitConfig, TransitLogin, private_file, transit::is_path_segment,
};

/// Who the broker is at the server: logs in when that is needed first, renews the token well before
/// it ends, and logs in anew when it cannot be renewed or is refused.
pub(super) struct Login {
    desk: Arc<Desk>,
    /// Renews in the background, and ends with this.
    _renewal: JoinSet<()>,
}

struct Desk {
    http: Arc<Http>,
    method: TransitLogin,
    clock: Arc<dyn Clock>,
    keys: usize,
    current: watch::Sender<Option<Arc<Token>>>,
    /// Held while someone logs in, so that all others wait for the one token.
    refused: Mutex<Option<Refused>>,
}

/// A secret that the server did not take.
struct Refused {
    secret: Zeroizing<Vec<u8>>,
    at: Duration,
    error: KmsError,
}

/// A token that the server gave or took.
pub(super) struct Token {
    header: HeaderValue,
    since: Duration,
    /// How long it lasts after that; for ever if this is zero.
    lasts: Duration,
    renewable: bool,
    has_worked: AtomicBool,
    /// For each key, whether it was found fit.
    fit: Vec<OnceCell<()>>,
}

impl Login {
    /// For so many keys.
    pub(super) fn open(
        config: &TransitConfig,
        http: Arc<Http>,
        clock: Arc<dyn Clock>,
        keys: usize,
    ) -> Result<Self, KmsOpenError> {
        let method = config.login.clone();
        if let TransitLogin::AppRole { mount, .. } = &method
            && !mount.split('/').all(is_path_segment)
        {
            let why = "the mount of a login is made of letters, digits, `_`, `-`, `.` and `/`";
            return Err(KmsOpenError::Configuration(why.to_owned()));
        }
        private_file::read(method.file())?;
        let current = watch::Sender::new(None);
        let refused = Mutex::default();
        let desk = Arc::new(Desk { http, method, clock, keys, current, refused });
        let mut renewal = JoinSet::new();
        let renewing = Arc::clone(&desk);
        renewal.spawn(async move { renewing.keep_renewed().await });
        Ok(Self { desk, _renewal: renewal })
    }

    /// The token in use; logs in for the first.
    pub(super) async fn token(&self) -> Result<Arc<Token>, KmsError> {
        let current = self.desk.current.borrow().clone();
        match current {
            Some(token) => Ok(token),
            None => self.desk.log_in(None).await,
        }
    }

    /// Another token after this one was refused. `None` when that would not help: a token that is new
    /// and was never of use is not the trouble, its policy is.
    pub(super) async fn after_denial(
        &self,
        token: &Arc<Token>,
    ) -> Result<Option<Arc<Token>>, KmsError> {
        let age = self.desk.clock.elapsed().saturating_sub(token.since);
        if !token.has_worked.load(Ordering::Relaxed) && age < NEW {
            return Ok(None);
        }
        let newer = self.desk.log_in(Some(token)).await?;
        Ok((newer.header != token.header).then_some(newer))
    }
}

/// A token this young is not suspected.
const NEW: Duration = Duration::from_secs(10);

/// A secret that was refused is tried again after this time, or when its file has changed. Servers
/// lock a role that is tried more often than a few times in 15 minutes.
const BETWEEN_REFUSALS: Duration = Duration::from_mins(5);

const BETWEEN_RENEWALS: Duration = Duration::from_secs(1);

impl Desk {
    async fn log_in(&self, stale: Option<&Arc<Token>>) -> Result<Arc<Token>, KmsError> {
        let mut refused = self.refused.lock().await;
        // Somebody else may have logged in meanwhile.
        let current = self.current.borrow().clone();
        if let Some(current) = current
            && stale.is_none_or(|stale| !Arc::ptr_eq(stale, &current))
        {
            return Ok(current);
        }
        let secret = private_file::read(self.method.file()).map_err(KmsError::refused)?;
        let now = self.clock.elapsed();
        if let Some(before) = &*refused
            && before.secret == secret
            && now.saturating_sub(before.at) < BETWEEN_REFUSALS
        {
            return Err(before.error.clone());
        }
        let text = private_file::without_line_break(&secret);
        let granted = match &self.method {
            TransitLogin::AppRole { role_id, mount, .. } => {
                self.as_role(role_id, text, mount, now).await
            }
            TransitLogin::Token { .. } => self.by_token(text, now).await,
        };
        match granted {
            Ok(token) => {
                *refused = None;
                let token = Arc::new(token);
                self.current.send_replace(Some(Arc::clone(&token)));
                Ok(token)
            }
            Err(refusal) => {
                let error = refusal.into_error();
                if matches!(error, KmsError::Refused(_)) {
                    let file = self.method.file().display();
                    tracing::error!(%file, "the KMS refuses to log in with what is in this file");
                    *refused = Some(Refused { secret, at: now, error: error.clone() });
                }
                Err(error)
            }
        }
    }

    async fn as_role(
        &self,
        role: &str,
        secret: &[u8],
        mount: &str,
        now: Duration,
    ) -> Result<Token, Refusal> {
        let secret = std::str::from_utf8(secret).map_err(|_| not_text())?;
        let body = json!({ "role_id": role, "secret_id": secret });
        let path = format!("auth/{mount}/login");
        let answer = self.http.ask(Method::POST, &path, None, Some(&body)).await?;
        let Grant { client_token, lease_duration, renewable } = answer.auth()?;
        Token::new(client_token.as_bytes(), now, lease_duration, renewable, self.keys)
    }

    async fn by_token(&self, text: &[u8], now: Duration) -> Result<Token, Refusal> {
        let token = Token::new(text, now, 0, false, self.keys)?;
        let path = "auth/token/lookup-self";
        let answer = self.http.ask(Method::GET, path, Some(&token), None).await?;
        let Properties { ttl, renewable } = answer.data()?;
        Ok(Token { lasts: Duration::from_secs(ttl), renewable, ..token })
    }

    /// Renews the token in use at two thirds of its time. What cannot be renewed for at least half of
    /// what it was given first is got anew.
    async fn keep_renewed(&self) {
        let mut tokens = self.current.subscribe();
        loop {
            let token = tokens.borrow_and_update().clone();
            let Some(token) = token.filter(|token| !token.lasts.is_zero()) else {
                // The sender lives as long as `self`.
                let _ = tokens.changed().await;
                continue;
            };
            let mut left = token.lasts;
            loop {
                tokio::select! {
                    _ = tokens.changed() => break,
                    () = sleep((left * 2 / 3).max(BETWEEN_RENEWALS)) => {}
                }
                left = match self.renew(&token).await {
                    Ok(Some(longer)) => longer,
                    Ok(None) => match self.log_in(Some(&token)).await {
                        Ok(_) => break,
                        Err(_) => left / 3,
                    },
                    Err(error) => {
                        tracing::warn!(%error, "the token of the KMS was not renewed yet");
                        left / 3
                    }
                };
            }
        }
    }

    /// How long the token lasts from now; `None` if another is needed.
    async fn renew(&self, token: &Token) -> Result<Option<Duration>, KmsError> {
        if !token.renewable {
            return Ok(None);
        }
        let path = "auth/token/renew-self";
        match self.http.ask(Method::POST, path, Some(token), Some(&json!({}))).await {
            Ok(answer) => {
                let Grant { lease_duration, .. } = answer.auth().map_err(Refusal::into_error)?;
                let lasts = Duration::from_secs(lease_duration);
                Ok((lasts >= token.lasts / 2).then_some(lasts))
            }
            Err(Refusal::Failed(error @ KmsError::Unavailable(_))) => Err(error),
            Err(Refusal::Denied(_) | Refusal::Failed(_)) => Ok(None),
        }
    }
}

impl Token {
    fn new(
        text: &[u8],
        since: Duration,
        seconds: u64,
        renewable: bool,
        keys: usize,
    ) -> Result<Self, Refusal> {
        let mut header = HeaderValue::from_bytes(text).map_err(|_| not_text())?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            since,
            lasts: Duration::from_secs(seconds),
            renewable,
            has_worked: AtomicBool::new(false),
            fit: std::iter::repeat_with(OnceCell::new).take(keys).collect(),
        })
    }

    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Has a key checked, once for each token: a key may be made anew under the same name.
    pub(super) async fn fit<F>(&self, key: usize, check: impl FnOnce() -> F) -> Result<(), Refusal>
    where
        F: Future<Output = Result<(), Refusal>>,
    {
        match self.fit.get(key) {
            Some(known) => known.get_or_try_init(check).await.copied(),
            None => check().await,
        }
    }

    /// The server did what was asked.
    pub(super) fn worked(&self) {
        self.has_worked.store(true, Ordering::Relaxed);
    }
}

impl TransitLogin {
    fn file(&self) -> &std::path::Path {
        match self {
            Self::AppRole { secret_id_file, .. } => secret_id_file,
            Self::Token { token_file } => token_file,
        }
    }
}

#[derive(Deserialize)]
struct Grant<'a> {
    client_token: &'a str,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct Properties {
    ttl: u64,
    renewable: bool,
}

fn not_text() -> Refusal {
    Refusal::unfit("the file of the login holds no text that a token or secret could be".to_owned())
}
