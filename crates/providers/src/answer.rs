use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::facts::MatchFacts;

/// A provider's answer, as far as it is needed to understand a refusal.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// How the body begins; the first 64 KiB are plenty.
    pub body: &'a [u8],
}

/// What an answer says, whichever of the vendors' shapes it has.
pub(crate) struct Told<'a> {
    answer: Answer<'a>,
    value: Value,
    codes: Vec<String>,
    messages: Vec<String>,
}

impl<'a> Told<'a> {
    pub(crate) fn read(answer: Answer<'a>) -> Self {
        let mut value = serde_json::from_slice::<Value>(answer.body).unwrap_or_default();
        // A stream of Google's that is no stream wraps its error in an array.
        if let Some([only]) = value.as_array_mut().map(Vec::as_mut_slice) {
            value = only.take();
        }
        let mut told = Self { answer, value, codes: Vec::new(), messages: Vec::new() };
        let kind = answer.headers.get("x-amzn-errortype").and_then(|kind| kind.to_str().ok());
        told.codes.extend(kind.and_then(|kind| kind.split(':').next()).map(str::to_owned));
        for place in CODES {
            told.codes.extend(told.value.pointer(place).and_then(scalar));
        }
        for (list, member) in [("/error/details", "/reason"), ("/errors", "/code")] {
            let all = told.value.pointer(list).and_then(Value::as_array);
            let found = all.into_iter().flatten().filter_map(|one| one.pointer(member));
            told.codes.extend(found.filter_map(scalar).collect::<Vec<_>>());
        }
        for place in MESSAGES {
            told.messages.extend(told.value.pointer(place).and_then(scalar));
        }
        if told.value.is_null() {
            told.read_xml();
        }
        told
    }

    /// AWS STS answers in XML; of that only these three things are of interest.
    fn read_xml(&mut self) {
        let text = String::from_utf8_lossy(self.answer.body);
        let text = text.trim_start();
        let between = |tag: &str| {
            let (_, after) = text.split_once(&format!("<{tag}>"))?;
            Some(after.split_once("</")?.0.to_owned())
        };
        self.codes.extend(between("Code"));
        self.messages.extend(between("Message"));
        let root = text.strip_prefix('<').and_then(|rest| rest.split(['>', ' ']).next());
        self.codes.extend(root.map(str::to_owned));
    }

    /// Whether the body looks like an answer of an API and not like a page for people.
    pub(crate) fn is_json(&self) -> bool {
        let first = self.answer.body.iter().find(|byte| !byte.is_ascii_whitespace());
        matches!(first, Some(b'{' | b'['))
    }

    pub(crate) fn status(&self) -> u16 {
        self.answer.status
    }

    /// How long the provider says to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let details = self.value.pointer("/error/details").and_then(Value::as_array);
        let told = details.into_iter().flatten().find_map(|one| {
            one.get("retryDelay")?.as_str()?.strip_suffix('s')?.parse::<f64>().ok()
        });
        let told = told.and_then(|told| Duration::try_from_secs_f64(told).ok());
        retry_after(self.answer.headers).or(told.map(|told| told.min(LONGEST_WAIT)))
    }

    pub(crate) fn matches(&self, when: &MatchFacts) -> bool {
        let header = |name: &String| {
            let value = self.answer.headers.get(name)?.to_str().ok()?;
            when.header_value.as_ref().is_none_or(|wanted| wanted == value).then_some(())
        };
        let pointer = |place: &String| {
            let found = self.value.pointer(place).and_then(scalar)?;
            when.value.as_ref().is_none_or(|wanted| *wanted == found).then_some(())
        };
        let begins = |start: &String| self.messages.iter().any(|one| one.starts_with(&**start));
        when.status.is_none_or(|status| status == self.answer.status)
            && when.code.as_ref().is_none_or(|code| self.codes.contains(code))
            && when.message.as_ref().is_none_or(begins)
            && when.header.as_ref().is_none_or(|name| header(name).is_some())
            && when.pointer.as_ref().is_none_or(|place| pointer(place).is_some())
    }
}

/// How long these headers say to wait, a day at the most: in milliseconds, in seconds or until a date, which
/// is counted from the date of the answer itself, so that nobody's clock matters.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let header = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    let number = |name: &str| header(name)?.parse().ok();
    let date = |name: &str| httpdate::parse_http_date(header(name)?).ok();
    let until = || date("retry-after")?.duration_since(date("date")?).ok();
    let wait = number("retry-after-ms").map(Duration::from_millis);
    let wait = wait.or_else(|| number("retry-after").map(Duration::from_secs)).or_else(until);
    wait.map(|wait| wait.min(LONGEST_WAIT))
}

const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// The status that an error in a successful answer, or in its first event, stands for; `None` when the
/// body tells of no error.
pub(crate) fn status_of_error(body: &Value) -> Option<u16> {
    let error = body.get("error").filter(|error| error.is_object())?;
    let code = error.get("code").and_then(scalar);
    let status = code.as_deref().and_then(|code| code.parse().ok());
    if let Some(status) = status.filter(|status| (400..600).contains(status)) {
        return Some(status);
    }
    let kind = error.get("type").and_then(Value::as_str);
    let said = |word: &str| kind == Some(word) || code.as_deref() == Some(word);
    let known = ERRORS.iter().find(|(word, _)| said(word));
    // An error that names no kind is the provider's trouble.
    Some(known.map_or(502, |(_, status)| *status))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What errors are called that come without a status of their own.
const ERRORS: [(&str, u16); 14] = [
    ("invalid_request_error", 400),
    ("invalid_prompt", 400),
    ("authentication_error", 401),
    ("invalid_api_key", 401),
    ("billing_error", 402),
    ("insufficient_quota", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("request_too_large", 413),
    ("rate_limit_error", 429),
    ("rate_limit_exceeded", 429),
    ("timeout_error", 504),
    ("overloaded_error", 529),
    ("api_error", 500),
];

const CODES: [&str; 9] = [
    "/error/code",
    "/error/type",
    "/error/status",
    "/error/details/error_code",
    "/error/metadata/error_type",
    "/error",
    "/code",
    "/type",
    "/__type",
];

const MESSAGES: [&str; 6] =
    ["/error/message", "/message", "/Message", "/error", "/detail", "/errors/0/message"];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&'static str, &str)], seconds: Option<f64>) {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        let wait = retry_after(&headers.collect()).map(|wait| wait.as_secs_f64());
        assert_eq!(wait, seconds);
    }

    #[test]
    fn a_wait_is_a_number_or_a_date_and_has_a_bound() {
        let now = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        check(&[now, ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], Some(30.0));
        check(&[now, ("retry-after", "Sunday, 06-Nov-94 08:50:07 GMT")], Some(30.0));
        check(&[now, ("retry-after", "Sun Nov  6 08:50:07 1994")], Some(30.0));
        check(&[("retry-after", " 7 "), ("retry-after-ms", "6500")], Some(6.5));
        check(&[("retry-after", "7")], Some(7.0));
        // A date says nothing to those who do not know the time of the one who said it, and nothing if
        // it is over.
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], None);
        check(&[now, ("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT")], None);
        for nonsense in ["", "soon", "-1", "1.5", "Sun, 99 Nov 1994 08:50:07 GMT"] {
            check(&[now, ("retry-after", nonsense)], None);
        }
        let day = Some(86400.0);
        check(&[("retry-after", "99999999999")], day);
        check(&[("retry-after-ms", "18446744073709551615")], day);
        check(&[now, ("retry-after", "Mon, 06 Nov 1995 08:49:37 GMT")], day);
    }
}
