use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use domain::{Clock as _, SystemClock};
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet, time};

use crate::process::{announce, orphaned};

/// A stand-in for a provider that answers at once: with a kilobyte, or with 50 chunks, each of which
/// says when it was written.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener.local_addr()?.to_string());
    let mut connections = JoinSet::new();
    let serve = async {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection.set_nodelay(true));
            connections.spawn(async move {
                // How a connection ends is the other side's business.
                let service = service_fn(answer);
                drop(
                    http1::Builder::new().serve_connection(TokioIo::new(connection), service).await,
                );
            });
        }
    };
    tokio::select! { () = serve => {}, () = orphaned() => {} }
    Ok(())
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

const CHUNKS: u32 = 50;
const BETWEEN_CHUNKS: Duration = Duration::from_millis(2);

async fn answer(request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let streamed = request.headers().get(ACCEPT).is_some_and(|value| value == "text/event-stream");
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        drop(frame?);
    }
    let (body, kind) = if streamed {
        (StreamBody::new(chunks()).boxed(), "text/event-stream")
    } else {
        (Full::new(Bytes::from_static(PLAIN.as_bytes())).boxed(), "application/json")
    };
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(answer)
}

fn chunks() -> impl stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync {
    let pace = time::interval(BETWEEN_CHUNKS);
    stream::unfold((0, pace), |(chunk, mut pace)| async move {
        if chunk == CHUNKS {
            return None;
        }
        pace.tick().await;
        let now = SystemClock.elapsed().as_nanos();
        let event = format!(
            "data: {{\"at\":{now:020},\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\
             \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word\"}}}}]}}\n\n"
        );
        Some((Ok(Frame::data(Bytes::from(event))), (chunk + 1, pace)))
    })
}

const PLAIN: &str = concat!(
    r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":"#,
    r#"[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"#,
    r#""Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut "#,
    r#"labore et dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco "#,
    r#"laboris nisi ut aliquip ex ea commodo consequat. Duis aute irure dolor in reprehenderit in "#,
    r#"voluptate velit esse cillum dolore eu fugiat nulla pariatur. Excepteur sint occaecat cupidatat "#,
    r#"non proident, sunt in culpa qui officia deserunt mollit anim id est laborum."}}],"#,
    r#""usage":{"prompt_tokens":250,"completion_tokens":110,"total_tokens":360}}"#,
);
