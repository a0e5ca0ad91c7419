use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use domain::{Clock as _, SystemClock};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

/// A stand-in for a provider that notes when each key came.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: String,
    uses: Uses,
    _serving: JoinSet<()>,
}

/// Times of arrival in their order, by key.
type Uses = Arc<Mutex<HashMap<String, Vec<Duration>>>>;

impl Upstream {
    /// Starts one whose answers say to have taken so many tokens of input and of output.
    pub(crate) async fn start(took: (u64, u64)) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let uses = Uses::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&uses), answer_of(took)));
        Ok(Self { address, uses, _serving: serving })
    }

    /// When a key came.
    pub(crate) fn uses(&self, key: &str) -> Vec<Duration> {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.get(key).cloned().unwrap_or_default()
    }
}

async fn serve(listener: TcpListener, uses: Uses, said: Bytes) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        // Those that have ended are of no use to anybody.
        while connections.try_join_next().is_some() {}
        drop(connection.set_nodelay(true));
        let (uses, said) = (Arc::clone(&uses), said.clone());
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &uses, &said));
            // How a connection ends is the other side's business.
            drop(http1::Builder::new().serve_connection(TokioIo::new(connection), service).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    uses: &Uses,
    said: &Bytes,
) -> Result<Answer, Infallible> {
    let at = SystemClock.elapsed();
    let key = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = key.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
    uses.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().push(at);
    // A caller that is gone needs no answer, and the use is noted.
    drop(request.into_body().collect().await);
    let mut answer = Response::new(Full::new(said.clone()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

type Answer = Response<Full<Bytes>>;

fn answer_of((input, output): (u64, u64)) -> Bytes {
    let all = input + output;
    Bytes::from(format!(
        "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\
         \"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"finish_reason\":\"stop\",\
         \"message\":{{\"role\":\"assistant\",\"content\":\"Hello.\"}}}}],\
         \"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":{all}}}}}"
    ))
}
