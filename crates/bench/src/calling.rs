use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

pub(crate) type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// An application's connections to proxies.
pub(crate) fn client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Where a proxy takes chats.
pub(crate) fn chat_url(proxy: &str) -> String {
    format!("http://{proxy}/v1/chat/completions")
}

/// Calls, and reads the whole answer.
pub(crate) async fn call(
    client: &HttpClient,
    url: &str,
    key: &str,
    body: &'static [u8],
) -> anyhow::Result<StatusCode> {
    let request = Request::post(url)
        .header(AUTHORIZATION, format!("Bearer {key}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from_static(body)))?;
    let answer = client.request(request).await.context("calling a proxy")?;
    let status = answer.status();
    answer.into_body().collect().await?;
    Ok(status)
}
