use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use memchr::memmem;
use providers::Provider;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

/// The body of a provider's answer, of which the beginning may have been looked at.
pub(crate) struct Begun {
    looked_at: VecDeque<Bytes>,
    rest: Incoming,
    /// How the answer broke off while it was looked at.
    broken: Option<hyper::Error>,
}

/// An answer that is an error.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Failed {
    /// The status that it stands for, which may not be the one that it has.
    pub(crate) status: StatusCode,
    /// What the provider says.
    pub(crate) body: Bytes,
}

impl Begun {
    pub(crate) const fn new(rest: Incoming) -> Self {
        Self { looked_at: VecDeque::new(), rest, broken: None }
    }

    /// Looks for an error in the place of an answer, before anything of it goes to the caller. What
    /// is held back for it has a bound in bytes and in time; nothing is lost.
    pub(crate) async fn error(&mut self, is_events: bool, provider: &Provider) -> Option<Failed> {
        let until = Instant::now() + LONGEST_LOOK;
        let mut seen = Vec::new();
        loop {
            match judge(&seen, is_events, provider) {
                Verdict::Error(error) => return Some(error),
                Verdict::Answer => return None,
                Verdict::Open => {}
            }
            if seen.len() > MOST_LOOKED_AT {
                return None;
            }
            match timeout_at(until, self.rest.frame()).await {
                Ok(Some(Ok(frame))) => {
                    // Trailers are not handed on.
                    let Ok(piece) = frame.into_data() else { continue };
                    seen.extend_from_slice(&piece);
                    self.looked_at.push_back(piece);
                }
                Ok(Some(Err(error))) => {
                    self.broken = Some(error);
                    return None;
                }
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Body for Begun {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if let Some(piece) = this.looked_at.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match this.broken.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => Pin::new(&mut this.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.looked_at.is_empty() && self.broken.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let looked_at: usize = self.looked_at.iter().map(Bytes::len).sum();
        let looked_at = u64::try_from(looked_at).unwrap_or(u64::MAX);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(looked_at));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(looked_at));
        }
        hint
    }
}

/// What the beginning of an answer comes to.
#[derive(Debug, Eq, PartialEq)]
enum Verdict {
    Answer,
    Error(Failed),
    /// More of it must be seen.
    Open,
}

fn judge(seen: &[u8], is_events: bool, provider: &Provider) -> Verdict {
    if is_events { judge_events(seen, provider) } else { judge_json(seen, provider) }
}

/// An error has nothing before it but white space.
fn judge_json(seen: &[u8], provider: &Provider) -> Verdict {
    let mut marks = seen.iter().filter(|byte| !byte.is_ascii_whitespace());
    for expected in br#"{"error""# {
        match marks.next() {
            None => return Verdict::Open,
            Some(found) if found != expected => return Verdict::Answer,
            Some(_) => {}
        }
    }
    match provider.error_in_success(seen) {
        Some(status) => error(status, seen),
        None if serde_json::from_slice::<Value>(seen).is_ok() => Verdict::Answer,
        None => Verdict::Open,
    }
}

/// Event by event, up to the first that says something.
fn judge_events(seen: &[u8], provider: &Provider) -> Verdict {
    let mut rest = seen;
    while let Some((event, after)) = first_event(rest) {
        rest = after;
        let data = data(event);
        if data.is_empty() {
            continue;
        }
        if let Some(status) = provider.error_in_success(&data) {
            return error(status, &data);
        }
        match serde_json::from_slice::<Value>(&data) {
            Ok(value) if !says_something(&value) => {}
            Ok(_) | Err(_) => return Verdict::Answer,
        }
    }
    Verdict::Open
}

fn error(status: u16, body: &[u8]) -> Verdict {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    Verdict::Error(Failed { status, body: Bytes::copy_from_slice(body) })
}

/// An event without the empty line that ends it, and what comes after that.
fn first_event(events: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = |mark: &[u8]| memmem::find(events, mark).map(|at| (at, at + mark.len()));
    let (end, next) = [end(b"\n\n"), end(b"\r\n\r\n")].into_iter().flatten().min()?;
    Some((events.get(..end)?, events.get(next..)?))
}

fn data(event: &[u8]) -> Vec<u8> {
    let lines = event.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.strip_prefix(b"data:")).collect::<Vec<_>>().concat()
}

/// Whether an event has a part of an answer, and does not only begin one.
fn says_something(event: &Value) -> bool {
    if let Some(kind) = event.get("type").and_then(Value::as_str) {
        return !matches!(kind, "ping" | "message_start");
    }
    let Some(choices) = event.get("choices").and_then(Value::as_array) else { return true };
    choices.iter().any(|choice| {
        let is_over = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
        let delta = choice.get("delta").and_then(Value::as_object);
        is_over
            || delta.is_none_or(|delta| {
                delta.iter().any(|(name, value)| name != "role" && !is_empty(value))
            })
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

const MOST_LOOKED_AT: usize = 16 << 10;

/// Whoever waits for an answer sees nothing meanwhile, not even that the provider is at work on it.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use providers::Catalogue;

    use super::*;

    #[track_caller]
    fn check(is_events: bool, whole: &str, expected: Option<u16>) {
        let catalogue = Catalogue::builtin().unwrap();
        let provider = catalogue.named("openrouter").unwrap();
        let found = judge(whole.as_bytes(), is_events, provider);
        match (&found, expected) {
            (Verdict::Error(error), Some(status)) => assert_eq!(error.status.as_u16(), status),
            (Verdict::Answer, None) => {}
            _ => panic!("{whole}: {found:?}"),
        }
        // Whatever is seen of it first says nothing else.
        for end in 0..whole.len() {
            let part = judge(&whole.as_bytes()[..end], is_events, provider);
            assert!(part == Verdict::Open || part == found, "{whole} up to {end}: {part:?}");
        }
    }

    #[test]
    fn an_error_in_the_place_of_an_answer_is_one() {
        check(false, r#"{"error":{"code":429,"message":"slow"},"user_id":"u"}"#, Some(429));
        check(false, "\n \n{ \"error\" :\n{\"code\":\"402\"}}", Some(402));
        check(false, r#"{"error":{"message":"?"}}"#, Some(502));
        check(false, r#"{"error":{"code":"rate_limit_exceeded"},"status":"failed"}"#, Some(429));
        check(false, r#"{"error":null,"output":[]}"#, None);
        check(false, r#"{"error":"text"}"#, None);
        check(false, r#"{"id":"c","error":{"code":429}}"#, None);
        check(false, "[1]", None);
        check(false, "<html>", None);
    }

    #[test]
    fn an_error_before_the_first_word_of_a_stream_is_one() {
        let role =
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
        let word = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
        let failed =
            "data: {\"error\":{\"code\":503},\"choices\":[{\"finish_reason\":\"error\"}]}\n\n";
        check(true, failed, Some(503));
        check(true, &format!(": PROCESSING\n\n: PROCESSING\n\n{failed}"), Some(503));
        check(true, &format!("{role}{failed}"), Some(503));
        check(true, &failed.replace('\n', "\r\n"), Some(503));
        check(true, word, None);
        check(true, &format!("{role}{word}"), None);
        check(true, "data: [DONE]\n\n", None);
        check(true, "data: {\"type\":\"response.created\"}\n\n", None);
        let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\n";
        let busy = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
        check(
            true,
            &format!("{start}event: ping\ndata: {{\"type\":\"ping\"}}\n\n{busy}"),
            Some(529),
        );
        let block = "event: content_block_start\ndata: {\"type\":\"content_block_start\"}\n\n";
        check(true, &format!("{start}{block}"), None);
    }
}
