use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::OnceLock,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Which addresses may be dialled: public ones, and what the operator names.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressRules {
    allow: Vec<IpNet>,
    /// The proxy's own listener, once there is one. A call to it would go round in circles.
    own: OnceLock<SocketAddr>,
}

impl AddressRules {
    pub(crate) fn new(allow: Vec<IpNet>) -> Self {
        Self { allow, own: OnceLock::new() }
    }

    /// Says where the proxy itself listens.
    pub(crate) fn listening_on(&self, own: SocketAddr) {
        // A second listener of one process is for tests; the first is the one to keep out.
        let _ = self.own.set(own);
    }

    /// Whether the address may be dialled.
    pub(crate) fn permits(&self, address: SocketAddr) -> bool {
        self.own.get() != Some(&address) && (self.names(address.ip()) || is_public(address.ip()))
    }

    /// Whether the operator's list names the address, which also allows plain HTTP to it.
    pub(crate) fn names(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|net| net.contains(&ip))
    }

    /// Whether a connection that was made leads back to this proxy by another of its addresses.
    pub(crate) fn is_loop(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        local.ip() == peer.ip() && self.own.get().is_some_and(|own| own.port() == peer.port())
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

    #[test]
    fn an_operator_can_name_networks_and_nothing_else_opens() {
        let rules = AddressRules::new(vec!["10.1.0.0/16".parse().unwrap()]);
        assert!(rules.permits("10.1.2.3:443".parse().unwrap()));
        assert!(!rules.permits("10.2.0.1:443".parse().unwrap()));
        assert!(!rules.permits("[::ffff:10.1.2.3]:443".parse().unwrap()));
        assert!(rules.permits("8.8.8.8:443".parse().unwrap()));
        assert!(!rules.names("8.8.8.8".parse().unwrap()));
    }

    #[test]
    fn the_proxy_does_not_call_itself() {
        let own: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let rules = AddressRules::new(vec!["127.0.0.0/8".parse().unwrap()]);
        rules.listening_on(own);
        assert!(!rules.permits(own));
        assert!(rules.permits("127.0.0.1:8081".parse().unwrap()));
        let local = "192.0.2.1:50000".parse().unwrap();
        assert!(rules.is_loop(local, "192.0.2.1:8080".parse().unwrap()));
        assert!(!rules.is_loop(local, "192.0.2.1:8081".parse().unwrap()));
        assert!(!rules.is_loop(local, "192.0.2.2:8080".parse().unwrap()));
    }
}
