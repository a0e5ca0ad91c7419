use std::net::IpAddr;

use domain::Origin;
use rustls::pki_types::ServerName;

use crate::EgressError;

/// An origin taken apart, in the one way in which it can be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place<'a> {
    pub(crate) plain: bool,
    pub(crate) host: Host<'a>,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Host<'a> {
    Name(&'a str),
    Address(IpAddr),
}

impl<'a> Place<'a> {
    /// Refuses every form that a resolver, a certificate's check or another program could read as a
    /// different host than the one that was looked at when the origin was allowed.
    pub(crate) fn of(origin: &'a Origin) -> Result<Self, EgressError> {
        let (scheme, authority) = origin.as_str().split_once("://").ok_or(EgressError::NoHost)?;
        let plain = scheme == "http";
        let (host, port) = match authority.rfind(':') {
            Some(at) if !authority.ends_with(']') => {
                let (host, port) = authority.split_at(at);
                (host, self::port(port.trim_start_matches(':'))?)
            }
            _ => (authority, if plain { 80 } else { 443 }),
        };
        Ok(Self { plain, host: Host::of(host)?, port })
    }
}

impl<'a> Host<'a> {
    fn of(text: &'a str) -> Result<Self, EgressError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let ip = inner.parse().map_err(|_| EgressError::NoHost)?;
            return Ok(Self::Address(IpAddr::V6(ip)));
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::Address(IpAddr::V4(ip)));
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x");
        let number = last.bytes().all(|byte| byte.is_ascii_digit())
            || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        // Programs end a name with a dot or not, and some read 127.1 or 0x7f000001 as an address.
        if text.ends_with('.') {
            return Err(EgressError::Form("the host ends with a dot"));
        }
        if number {
            return Err(EgressError::Form("the host is a number: write a name"));
        }
        if text.len() > LONGEST_NAME || text.split('.').any(|label| !is_label(label)) {
            return Err(EgressError::NoHost);
        }
        Ok(Self::Name(text))
    }

    /// What the certificate must be for.
    pub(crate) fn server_name(self) -> Result<ServerName<'static>, EgressError> {
        match self {
            Self::Address(ip) => Ok(ServerName::IpAddress(ip.into())),
            Self::Name(name) => {
                ServerName::try_from(name.to_owned()).map_err(|_| EgressError::NoHost)
            }
        }
    }
}

fn is_label(label: &str) -> bool {
    let ok = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    (1..=63).contains(&label.len()) && label.bytes().all(ok)
}

/// Rust would read `+443` and `0443` too.
fn port(text: &str) -> Result<u16, EgressError> {
    let port = text.parse::<u16>().ok().filter(|port| *port != 0 && port.to_string() == text);
    port.ok_or(EgressError::Form("the port is not one from 1 to 65535, in plain digits"))
}

const LONGEST_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<(&str, u16), &str>) {
        // What is no origin at all never gets here.
        let origin = Origin::of_url(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let place = Place::of(&origin);
        let found = place.map(|place| match place.host {
            Host::Name(name) => (format!("name {name}"), place.port),
            Host::Address(ip) => (format!("address {ip}"), place.port),
        });
        let found = found.map_err(|error| error.word());
        assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)), "{url}");
    }

    #[test]
    fn a_host_is_read_in_one_way_or_not_at_all() {
        check("https://api.openai.com/v1", Ok(("name api.openai.com", 443)));
        check("https://api.openai.com:8443", Ok(("name api.openai.com", 8443)));
        check("http://localhost", Ok(("name localhost", 80)));
        check("https://xn--bcher-kva.example", Ok(("name xn--bcher-kva.example", 443)));
        check("https://1.1.1.1", Ok(("address 1.1.1.1", 443)));
        check("https://[2606:4700::1]:8443", Ok(("address 2606:4700::1", 8443)));
        check("https://3com.example", Ok(("name 3com.example", 443)));
        check("https://0x.example", Ok(("name 0x.example", 443)));
        for number in [
            "https://127.1",
            "https://2130706433",
            "https://0x7f000001",
            "https://0x7f.0.0.1",
            "https://0177.0.0.1",
            "https://0300.0250.1.1",
            "https://127.0.0.0x1",
            "https://1.2.3.4.5",
            "https://256.1.1.1",
            "https://0x",
            "https://example.1",
        ] {
            check(number, Err("form"));
        }
        for dotted in ["https://api.openai.com.", "https://127.0.0.1.", "https://."] {
            check(dotted, Err("form"));
        }
        for port in ["https://a.example:0", "https://a.example:+443", "https://a.example:0443"] {
            check(port, Err("form"));
        }
        for none in ["https://a..example", "https://.example", "https://[::1", "https://[fe80]"] {
            check(none, Err("no_host"));
        }
        check(&format!("https://{}.example", "a".repeat(64)), Err("no_host"));
        check(&format!("https://{}example", "abcdefgh.".repeat(30)), Err("no_host"));
    }

    #[test]
    fn what_no_two_programs_read_alike_is_no_origin() {
        for url in [
            "https://user@api.openai.com",
            "https://api.openai.com@evil.example",
            "https://api.openai.com%2eevil.example",
            "https://api.openai.com\\@evil.example",
            "https://bücher.example",
            "https://127.0.0。1",
            "https://①②⑦.0.0.1",
            "https://[fe80::1%25eth0]",
            "https://a.example:443:80@x",
            "https://a b",
            "https://a\tb",
            "https://a.example\r\nhost: b",
            "https:///path",
            "//a.example",
            "file:///etc/passwd",
            "gopher://a.example",
        ] {
            assert!(Origin::of_url(url).is_err(), "{url:?}");
        }
    }
}
