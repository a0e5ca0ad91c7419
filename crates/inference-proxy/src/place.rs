use std::{net::IpAddr, str::FromStr as _};

use domain::{EndpointKind, KeyTerms};
use http::{HeaderMap, StatusCode};
use ipnet::IpNet;

use crate::{lease_refusal::broken, refusal::Refusal};

/// Where a call comes from.
///
/// That is who connects, or, when that is one of the `trusted`, the last address in
/// `X-Forwarded-For` that is none of theirs: each of them appends whom it was called by, so what
/// stands before is the caller's own word. `None` if one of the trusted names no address.
pub(crate) fn caller(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut caller = peer.to_canonical();
    if !is_trusted(&caller) {
        return Some(caller);
    }
    let fields: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    for field in fields.into_iter().rev() {
        for item in field.to_str().ok()?.rsplit(',') {
            caller = address(item.trim())?;
            if !is_trusted(&caller) {
                return Some(caller);
            }
        }
    }
    Some(caller)
}

/// An address, with or without a port: some forwarders write one.
fn address(text: &str) -> Option<IpAddr> {
    let plain = IpAddr::from_str(text).ok();
    let with_port = || std::net::SocketAddr::from_str(text).ok().map(|it| it.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    plain.or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

/// Refuses a call that a virtual key is not for. It is asked with every call, whatever is cached: one
/// lease serves callers from everywhere.
pub(crate) fn check(
    terms: &KeyTerms,
    endpoint: EndpointKind,
    source: Option<IpAddr>,
) -> Result<(), Refusal> {
    if !terms.endpoints.is_empty() && !terms.endpoints.contains(&endpoint) {
        let message = format!(
            "this virtual key is not for `{}` calls; its owner can add the endpoint",
            endpoint.as_str(),
        );
        return Err(Refusal::new(StatusCode::FORBIDDEN, "endpoint_not_in_scope", message));
    }
    check_source(terms, source)
}

/// Refuses a caller from elsewhere than a virtual key is for.
pub(crate) fn check_source(terms: &KeyTerms, source: Option<IpAddr>) -> Result<(), Refusal> {
    if terms.permits_source(source) {
        return Ok(());
    }
    let from = source.map_or("an address that is not known".to_owned(), |it| it.to_string());
    let message =
        format!("this virtual key is not for use from {from}; its owner can add the network");
    Err(Refusal::new(StatusCode::FORBIDDEN, "source_not_in_scope", message))
}

/// Reads what the broker says of a key's terms. What cannot be read permits nothing.
pub(crate) fn told(endpoints: &[String], networks: &[String]) -> Result<KeyTerms, Refusal> {
    KeyTerms::of_places(endpoints, networks).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_caller(peer: &str, forwarded: &[&str], expected: Option<&str>) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/64".parse().unwrap()];
        let name = http::HeaderName::from_static("x-forwarded-for");
        let mut all = HeaderMap::new();
        for value in forwarded {
            all.append(name.clone(), value.parse().unwrap());
        }
        let found = caller(peer.parse().unwrap(), &all, &trusted);
        assert_eq!(found, expected.map(|address| address.parse().unwrap()), "{forwarded:?}");
    }

    #[test]
    fn a_stranger_is_not_believed_whatever_it_says() {
        check_caller("192.0.2.1", &[], Some("192.0.2.1"));
        check_caller("192.0.2.1", &["198.51.100.7"], Some("192.0.2.1"));
        check_caller("::ffff:192.0.2.1", &["10.0.0.1"], Some("192.0.2.1"));
    }

    #[test]
    fn of_what_a_trusted_proxy_says_the_rightmost_stranger_counts() {
        check_caller("10.0.0.1", &["198.51.100.7"], Some("198.51.100.7"));
        check_caller("::ffff:10.0.0.1", &["1.2.3.4, 198.51.100.7"], Some("198.51.100.7"));
        check_caller("10.0.0.1", &["1.2.3.4,198.51.100.7, 10.9.9.9"], Some("198.51.100.7"));
        check_caller("10.0.0.1", &["1.2.3.4", "198.51.100.7", "10.9.9.9"], Some("198.51.100.7"));
        check_caller("2001:db8::5", &["198.51.100.7:4711"], Some("198.51.100.7"));
        check_caller("10.0.0.1", &["[2001:db8:1::7]:4711"], Some("2001:db8:1::7"));
        check_caller("10.0.0.1", &["[2001:db8:1::7]"], Some("2001:db8:1::7"));
        check_caller("10.0.0.1", &["::ffff:198.51.100.7"], Some("198.51.100.7"));
        check_caller("10.0.0.1", &["10.0.0.7, 10.0.0.8"], Some("10.0.0.7"));
        check_caller("10.0.0.1", &[], Some("10.0.0.1"));
    }

    #[test]
    fn what_a_trusted_proxy_does_not_know_nobody_does() {
        for value in ["unknown", "", "198.51.100.7, ", "198.51.100.7, _hidden", "1.2.3.4.5"] {
            check_caller("10.0.0.1", &[value], None);
        }
        // Beyond a stranger nothing is read.
        check_caller("10.0.0.1", &["unknown, 198.51.100.7"], Some("198.51.100.7"));
    }

    #[test]
    fn a_refusal_names_what_was_asked_for_and_nothing_else() {
        let (endpoints, networks) = (["embeddings".to_owned()], ["10.0.0.0/8".to_owned()]);
        let terms = told(&endpoints, &networks).unwrap();
        let from = |address: &str| Some(address.parse().unwrap());
        let chat = EndpointKind::ChatCompletions;
        assert_eq!(check(&terms, EndpointKind::Embeddings, from("10.0.0.1")), Ok(()));
        let refusal = check(&terms, chat, from("10.0.0.1")).unwrap_err();
        assert_eq!((refusal.status.as_u16(), &*refusal.code), (403, "endpoint_not_in_scope"));
        assert!(refusal.message.contains("chat_completions"));
        assert!(!refusal.message.contains("embeddings"));
        let refusal = check(&terms, EndpointKind::Embeddings, from("192.0.2.1")).unwrap_err();
        assert_eq!((refusal.status.as_u16(), &*refusal.code), (403, "source_not_in_scope"));
        assert!(refusal.message.contains("192.0.2.1") && !refusal.message.contains("10.0"));
        assert!(check(&terms, EndpointKind::Embeddings, None).is_err());
        assert!(told(&["telepathy".to_owned()], &[]).is_err());
    }
}
