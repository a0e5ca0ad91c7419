use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::OnceLock,
};

use domain::Origin;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    EgressError,
    place::{Host, Place},
};

/// Which addresses may be dialled: public ones, and what the operator names.
#[derive(Clone, Debug, Default)]
pub struct AddressRules {
    allow: Vec<IpNet>,
    plain_http_to_loopback: bool,
    /// The service's own listener, once there is one. A call to it would go round in circles.
    own: OnceLock<SocketAddr>,
}

impl AddressRules {
    /// Public addresses, and these networks.
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self { allow, ..Self::default() }
    }

    /// The same, and plain HTTP to those loopback addresses that are named: for tests, whose
    /// providers run beside them. What is sent can be read by whoever may read this machine's
    /// traffic.
    #[must_use]
    pub fn with_danger_plain_http_to_loopback(self, on: bool) -> Self {
        Self { plain_http_to_loopback: on, ..self }
    }

    /// Says where the service itself listens.
    pub fn listening_on(&self, own: SocketAddr) {
        // A second listener of one process is for tests; the first is the one to keep out.
        let _ = self.own.set(own);
    }

    /// Whether a credential may name this origin, as far as that can be told without looking the host
    /// up. What its name leads to is checked again with each connection.
    pub fn check_origin(&self, origin: &Origin) -> Result<(), EgressError> {
        self.check(&Place::of(origin)?)
    }

    pub(crate) fn check(&self, place: &Place<'_>) -> Result<(), EgressError> {
        match place.host {
            // Nobody needs a bare address on the internet: what is there has a name and a certificate.
            Host::Address(ip) if !self.names(ip) || !self.permits_ip(ip) => {
                Err(EgressError::BlockedAddress)
            }
            Host::Address(ip) if place.plain && !self.permits_plain_http(ip) => {
                Err(EgressError::PlainHttp)
            }
            _ if place.plain && !self.plain_http_to_loopback => Err(EgressError::PlainHttp),
            Host::Address(_) | Host::Name(_) => Ok(()),
        }
    }

    /// Whether the address may be dialled.
    pub(crate) fn permits(&self, address: SocketAddr) -> bool {
        self.own.get() != Some(&address) && self.permits_ip(address.ip())
    }

    fn permits_ip(&self, ip: IpAddr) -> bool {
        !is_never(ip)
            && (self.names(ip) || is_public(ip))
            // Behind a gateway that translates, it is the address inside that answers.
            && embedded(ip).is_none_or(|inside| self.permits_ip(IpAddr::V4(inside)))
    }

    /// Whether plain HTTP may go there.
    pub(crate) fn permits_plain_http(&self, ip: IpAddr) -> bool {
        self.plain_http_to_loopback && ip.is_loopback() && self.names(ip)
    }

    fn names(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|net| net.contains(&ip))
    }

    /// Whether a connection that was made leads back to this service by another of its addresses.
    pub(crate) fn is_loop(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let Some(own) = self.own.get().filter(|own| own.port() == peer.port()) else {
            return false;
        };
        // Loopback has many addresses, and calls to one of them come from another.
        local.ip() == peer.ip() || (own.ip().is_unspecified() && peer.ip().is_loopback())
    }
}

/// Whether an address is anyone's on the internet, rather than this machine's, this network's, the
/// cloud's own or one that carries another address inside.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !RESERVED_V4.iter().any(|net| net.contains(&ip)),
        // Only 2000::/3 is given out; whatever lies outside of it is special in some way.
        IpAddr::V6(ip) => {
            GLOBAL_V6.contains(&ip) && !RESERVED_V6.iter().any(|net| net.contains(&ip))
        }
    }
}

/// Whether an address is never a model's, so that not even the operator's list opens it: a wide network
/// is soon written down, and a cloud's metadata would hand out the machine's own identity.
fn is_never(ip: IpAddr) -> bool {
    ip.is_multicast()
        || match ip {
            IpAddr::V4(ip) => NEVER_V4.iter().any(|net| net.contains(&ip)),
            IpAddr::V6(ip) => ip.is_unspecified() || NEVER_V6.iter().any(|net| net.contains(&ip)),
        }
}

/// The IPv4 address inside of one that translates: mapped, compatible, NAT64, 6to4, ISATAP.
fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        // `::1` and `::` are not of IPv4.
        [0, 0, 0, 0, 0, 0, 0, _] => None,
        [0x2002, high, low, ..]
        | [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(of(high, low)),
        _ => None,
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(a: u16, b: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), bits)
}

/// RFC 6890 and its successors, and the address at which one cloud has its metadata.
const RESERVED_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(168, 63, 129, 16, 32),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];
/// This network and the broadcast, link-local addresses, and where clouds have their metadata.
const NEVER_V4: [Ipv4Net; 6] = [
    v4(0, 0, 0, 0, 8),
    v4(100, 100, 100, 200, 32),
    v4(168, 63, 129, 16, 32),
    v4(169, 254, 0, 0, 16),
    v4(192, 0, 0, 192, 32),
    v4(255, 255, 255, 255, 32),
];
const NEVER_V6: [Ipv6Net; 4] = [
    v6(0xfe80, 0, 10),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
];
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);
/// Special uses inside `2000::/3`: protocols (Teredo among them), examples and 6to4.
const RESERVED_V6: [Ipv6Net; 4] =
    [v6(0x2001, 0, 23), v6(0x2001, 0xdb8, 32), v6(0x2002, 0, 16), v6(0x3fff, 0, 20)];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ip: &str, public: bool) {
        assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
    }

    #[test]
    fn only_public_addresses_are_dialled() {
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "104.18.7.192",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "2606:4700::1",
            "2a00:1450::1",
        ] {
            check(ip, true);
        }
        for ip in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "168.63.129.16",
            "192.0.0.192",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "100::1",
            "5f00::1",
        ] {
            check(ip, false);
        }
    }

    #[track_caller]
    fn rules(allow: &[&str]) -> AddressRules {
        AddressRules::new(allow.iter().map(|net| net.parse().unwrap()).collect())
    }

    #[track_caller]
    fn permitted(rules: &AddressRules, ip: &str, permitted: bool) {
        let address = SocketAddr::new(ip.parse().unwrap(), 443);
        assert_eq!(rules.permits(address), permitted, "{ip}");
    }

    #[test]
    fn an_operator_can_name_networks_and_nothing_else_opens() {
        let rules = rules(&["10.1.0.0/16", "fd12::/16"]);
        permitted(&rules, "10.1.2.3", true);
        permitted(&rules, "fd12::1", true);
        permitted(&rules, "8.8.8.8", true);
        permitted(&rules, "10.2.0.1", false);
        permitted(&rules, "fd13::1", false);
        permitted(&rules, "::ffff:10.1.2.3", false);
    }

    #[test]
    fn what_is_never_a_models_address_cannot_be_named() {
        let rules = rules(&["0.0.0.0/0", "::/0"]);
        for ip in ["10.0.0.1", "127.0.0.1", "192.168.1.1", "::1", "fd00::1", "2606:4700::1"] {
            permitted(&rules, ip, true);
        }
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "fe80::1",
            "ff02::1",
            "ff0e::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ] {
            permitted(&rules, ip, false);
        }
    }

    #[test]
    fn an_address_inside_of_another_is_checked_too() {
        let rules = rules(&["64:ff9b::/96", "::ffff:0:0/96", "2002::/16", "::/96", "fd00::/8"]);
        for (ip, open) in [
            ("64:ff9b::8.8.8.8", true),
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b::169.254.169.254", false),
            ("::ffff:8.8.8.8", true),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("2002:808:808::1", true),
            ("2002:7f00:1::1", false),
            ("2002:a9fe:a9fe::1", false),
            ("::8.8.8.8", true),
            ("::10.0.0.1", false),
            ("fd00::1", true),
            ("fd00::5efe:10.0.0.1", false),
            ("fd00::200:5efe:8.8.8.8", true),
            ("2606:4700::5efe:127.0.0.1", false),
        ] {
            permitted(&rules, ip, open);
        }
    }

    #[test]
    fn an_origin_is_checked_before_anything_is_looked_up() {
        let rules = rules(&["10.1.0.0/16", "127.0.0.0/8", "::1/128"]);
        let tests = AddressRules { plain_http_to_loopback: true, ..rules.clone() };
        let check = |rules: &AddressRules, origin: &str| {
            rules.check_origin(&origin.parse().unwrap()).map_err(|error| error.word())
        };
        for origin in ["https://api.openai.com", "https://models.corp:8443", "https://10.1.2.3"] {
            assert_eq!(check(&rules, origin), Ok(()), "{origin}");
        }
        // A bare address, be it a public one, is taken only if it is named.
        for origin in ["https://8.8.8.8", "https://[2606:4700::1]", "https://10.2.0.1"] {
            assert_eq!(check(&rules, origin), Err("blocked_address"), "{origin}");
        }
        for origin in ["http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost:8080"] {
            assert_eq!(check(&rules, origin), Err("plain_http"), "{origin}");
            assert_eq!(check(&tests, origin), Ok(()), "{origin}");
        }
        assert_eq!(check(&tests, "http://10.1.2.3"), Err("plain_http"));
        assert_eq!(check(&rules, "https://2130706433"), Err("form"));
    }

    #[test]
    fn a_service_does_not_call_itself() {
        let own: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let rules = rules(&["127.0.0.0/8"]);
        rules.listening_on(own);
        assert!(!rules.permits(own));
        assert!(rules.permits("127.0.0.1:8081".parse().unwrap()));
        let local = "192.0.2.1:50000".parse().unwrap();
        assert!(rules.is_loop(local, "192.0.2.1:8080".parse().unwrap()));
        assert!(!rules.is_loop(local, "192.0.2.1:8081".parse().unwrap()));
        assert!(!rules.is_loop(local, "192.0.2.2:8080".parse().unwrap()));
    }
}
