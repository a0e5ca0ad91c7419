use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A workload's identity: `spiffe://trust-domain/path`, valid by the SPIFFE ID standard, with a path.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct SpiffeId(String);

/// Why a text is not the SPIFFE ID of a workload.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct InvalidSpiffeId(&'static str);

impl SpiffeId {
    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part between `spiffe://` and the path.
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix(SCHEME).unwrap_or_default();
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        if text.len() > 2048 {
            return Err(InvalidSpiffeId("a SPIFFE ID has 2048 bytes at most"));
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or(InvalidSpiffeId("a SPIFFE ID starts with spiffe://"))?;
        let (domain, path) = rest
            .split_once('/')
            .ok_or(InvalidSpiffeId("the SPIFFE ID of a workload has a path"))?;
        if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(is_domain_byte) {
            return Err(InvalidSpiffeId("a trust domain is 1 to 255 of [a-z0-9.-_]"));
        }
        // An empty segment covers `//` and a trailing `/`; the byte set covers percent-encoding.
        let valid = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(is_path_byte)
        };
        if !path.split('/').all(valid) {
            return Err(InvalidSpiffeId(
                "a SPIFFE path has segments of [A-Za-z0-9.-_], none of them empty, `.` or `..`",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = InvalidSpiffeId;

    fn try_from(text: String) -> Result<Self, InvalidSpiffeId> {
        text.parse()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One SPIFFE ID, or all below a path: `spiffe://acme.internal/proxy/*`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct SpiffePattern {
    prefix: SpiffeId,
    below: bool,
}

impl SpiffePattern {
    /// Whether the pattern names this identity.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        if !self.below {
            return *id == self.prefix;
        }
        id.0.strip_prefix(&self.prefix.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for SpiffePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, if self.below { "/*" } else { "" })
    }
}

impl From<SpiffePattern> for String {
    fn from(pattern: SpiffePattern) -> Self {
        pattern.to_string()
    }
}

impl FromStr for SpiffePattern {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        match text.strip_suffix("/*") {
            Some(prefix) => Ok(Self { prefix: prefix.parse()?, below: true }),
            None => Ok(Self { prefix: text.parse()?, below: false }),
        }
    }
}

impl TryFrom<String> for SpiffePattern {
    type Error = InvalidSpiffeId;

    fn try_from(text: String) -> Result<Self, InvalidSpiffeId> {
        text.parse()
    }
}

const SCHEME: &str = "spiffe://";

fn is_domain_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(id: &str, valid: bool) {
        assert_eq!(id.parse::<SpiffeId>().is_ok(), valid, "{id:?}");
    }

    #[test]
    fn each_must_of_the_standard_refuses() {
        check("spiffe://acme.internal/inference-proxy", true);
        check("spiffe://acme.internal/ns/prod/sa/proxy", true);
        check("https://acme.internal/x", false);
        check("SPIFFE://acme.internal/x", false);
        check("spiffe://acme.internal", false);
        check("spiffe://acme.internal/", false);
        check("spiffe://acme.internal/x/", false);
        check("spiffe://acme.internal//x", false);
        check("spiffe://acme.internal/./x", false);
        check("spiffe://acme.internal/../x", false);
        check("spiffe://acme.internal/%41", false);
        check("spiffe://Acme.internal/x", false);
        check("spiffe://acme.internal:443/x", false);
        check("spiffe://user@acme.internal/x", false);
        check("spiffe:///x", false);
        check("spiffe://acme.internal/x?y", false);
        check("spiffe://acme.internal/x#y", false);
        check(&format!("spiffe://acme.internal/{}", "x".repeat(2048)), false);
    }

    #[test]
    fn a_pattern_names_one_or_all_below() {
        let below: SpiffePattern = "spiffe://a.b/proxy/*".parse().unwrap();
        assert!(below.matches(&"spiffe://a.b/proxy/1".parse().unwrap()));
        assert!(!below.matches(&"spiffe://a.b/proxy".parse().unwrap()));
        assert!(!below.matches(&"spiffe://a.b/proxyx/1".parse().unwrap()));
        let one: SpiffePattern = "spiffe://a.b/proxy".parse().unwrap();
        assert!(one.matches(&"spiffe://a.b/proxy".parse().unwrap()));
        assert!(!one.matches(&"spiffe://a.b/proxy/1".parse().unwrap()));
    }
}
