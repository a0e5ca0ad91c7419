use std::{fmt, str::FromStr};

use thiserror::Error;

/// Where a secret may go: scheme, host and port, and nothing else. `https://api.openai.com`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Origin(String);

/// A URL from which no origin can be taken.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct InvalidOrigin(&'static str);

impl Origin {
    /// The origin of a base URL: `https://host/v1` gives `https://host`.
    pub fn of_url(url: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or(InvalidOrigin("an address starts with https:// or http://"))?;
        let default_port = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => return Err(InvalidOrigin("an address starts with https:// or http://")),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(InvalidOrigin("an address must not name a user"));
        }
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        let (host, port) = match authority.rfind(':') {
            Some(at) if !authority.ends_with(']') => authority.split_at(at),
            _ => (authority, ""),
        };
        if !port.is_empty() && port.get(1..).is_none_or(|port| port.parse::<u16>().is_err()) {
            return Err(InvalidOrigin("an address has a port from 0 to 65535"));
        }
        if host.is_empty() || !host.bytes().all(is_host_byte) {
            return Err(InvalidOrigin("an address names a host in lower case"));
        }
        Ok(Self(format!("{scheme}://{authority}")))
    }

    /// The origin as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let origin = Self::of_url(text)?;
        if origin.0 == text {
            Ok(origin)
        } else {
            Err(InvalidOrigin("an origin has neither path nor default port"))
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_host_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'[' | b']' | b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, origin: Option<&str>) {
        assert_eq!(Origin::of_url(url).ok().as_ref().map(Origin::as_str), origin, "{url:?}");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        check("https://api.openai.com/v1", Some("https://api.openai.com"));
        check("https://api.openai.com:443/v1", Some("https://api.openai.com"));
        check("http://127.0.0.1:8080/v1?x", Some("http://127.0.0.1:8080"));
        check("http://[::1]:8080", Some("http://[::1]:8080"));
        check("https://user@host", None);
        check("ftp://host", None);
        check("https://", None);
        check("https://host:99999", None);
        check("https://ho st", None);
        check("https://HOST", None);
    }
}
