use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    Response, StatusCode,
    body::Frame,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Answer;

/// As fast as a model that is in a hurry.
const PACE: Duration = Duration::from_millis(15);

/// A whole answer.
pub(crate) fn whole(body: &Value) -> Answer {
    answer("application/json", Full::new(Bytes::from(body.to_string())).boxed())
}

/// An answer in events, one after the other.
pub(crate) fn events(events: Vec<String>) -> Answer {
    let frames = stream::iter(events).then(|event| async move {
        sleep(PACE).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from(event)))
    });
    answer("text/event-stream", http_body_util::BodyExt::boxed(StreamBody::new(frames)))
}

/// An error, in a shape that both SDKs read.
pub(crate) fn refused(status: StatusCode, why: &str) -> Answer {
    let error = json!({ "type": "invalid_request_error", "message": why });
    let mut answer = whole(&json!({ "type": "error", "error": error }));
    *answer.status_mut() = status;
    answer
}

/// The text in the pieces in which a model would send it.
pub(crate) fn words(said: &str) -> impl Iterator<Item = &str> {
    said.split_inclusive(' ')
}

fn answer(
    content_type: &'static str,
    body: http_body_util::combinators::BoxBody<Bytes, Infallible>,
) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
