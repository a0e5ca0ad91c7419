use std::fmt::Write as _;

use crate::{
    Event,
    fields::{Value, fields},
    meaning::{Weight, summary, weight},
};

/// A record in the Common Event Format, version 0 of the header, on one line.
pub(crate) fn line(event: &Event) -> String {
    let mut line = format!(
        "CEF:0|Strongroom|Strongroom|{}|{}|{}|{}|rt={} externalId={} outcome={}",
        header(env!("CARGO_PKG_VERSION")),
        header(event.kind.as_str_name()),
        header(summary(event.kind)),
        severity(weight(event)),
        event.time.as_millis(),
        event.index,
        if event.is_refused() { "failure" } else { "success" },
    );
    for (name, value) in fields(event) {
        let value = match value {
            Value::Text(text) => extension(&text),
            Value::Number(number) => number.to_string(),
        };
        // Writing to a `String` cannot fail.
        let _ = match place(name) {
            Place::Elsewhere => Ok(()),
            Place::Key(key) => write!(line, " {key}={value}"),
            Place::Custom(key, label) => write!(line, " {key}={value} {key}Label={label}"),
            Place::Own => write!(line, " {}={value}", own_key(name)),
        };
    }
    line
}

/// Where a field of a record stands.
enum Place {
    /// In the header, or under a key that is always there.
    Elsewhere,
    /// Under a key of the dictionary.
    Key(&'static str),
    /// Under a numbered key of the dictionary, with a label.
    Custom(&'static str, &'static str),
    /// Under a key of ours: maker, product, name.
    Own,
}

fn place(name: &str) -> Place {
    match name {
        "index" | "time" | "kind" => Place::Elsewhere,
        "reason" => Place::Key("reason"),
        "actor" => Place::Key("suser"),
        "subject" => Place::Key("duser"),
        "method" => Place::Key("act"),
        "count" => Place::Key("cnt"),
        "broker" => Place::Key("deviceExternalId"),
        "tenant" => Place::Custom("cs1", "tenant"),
        "credential" => Place::Custom("cs2", "credential"),
        "provider" => Place::Custom("cs3", "provider"),
        "virtual_key" => Place::Custom("cs4", "virtualKey"),
        "lease_hash" => Place::Custom("cs5", "leaseHash"),
        "session_key_sha256" => Place::Custom("cs6", "sessionKeySha256"),
        "credential_version" => Place::Custom("cn1", "credentialVersion"),
        "revision" => Place::Custom("cn2", "revision"),
        "lease_renewals" => Place::Custom("cn3", "leaseRenewals"),
        _ => Place::Own,
    }
}

/// `kek_id` becomes `StrongroomLogKekId`.
fn own_key(name: &str) -> String {
    let mut key = "StrongroomLog".to_owned();
    for word in name.split('_') {
        let mut letters = word.chars();
        key.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        key.push_str(letters.as_str());
    }
    key
}

/// The scale of CEF: 0 to 3 low, 4 to 6 medium, 7 and 8 high, 9 and 10 very high.
fn severity(weight: Weight) -> u8 {
    match weight {
        Weight::Routine => 1,
        Weight::Notice => 4,
        Weight::Warning => 6,
        Weight::Alarm => 9,
    }
}

/// In the header, backslashes and pipes are escaped and lines do not end.
fn header(text: &str) -> String {
    text.replace('\\', r"\\").replace('|', r"\|").replace(['\r', '\n'], " ")
}

/// In the extension, backslashes, equals signs and line ends are escaped; pipes are not.
fn extension(text: &str) -> String {
    text.replace('\\', r"\\").replace('=', r"\=").replace('\r', r"\r").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_divides_the_parts_is_escaped_where_it_divides() {
        assert_eq!(header("a|b\\c\nd=e"), r"a\|b\\c d=e");
        assert_eq!(extension("a|b\\c\r\nd=e"), r"a|b\\c\r\nd\=e");
    }

    #[test]
    fn keys_of_ours_have_maker_and_product_in_front() {
        assert_eq!(own_key("kek_id"), "StrongroomLogKekId");
    }
}
