use std::{sync::Arc, time::Duration};

use domain::Clock;
use rustls::{
    SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs, aws_lc_rs::kx_group},
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::UnixTime;

/// The only protocol version spoken.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// The only application protocol: gRPC clients insist on its being negotiated.
pub(crate) const ALPN: &[u8] = b"h2";

/// What readers of files over HTTP speak.
pub(crate) const HTTP_ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// AWS-LC, with the post-quantum hybrid first. Named here rather than left to a cargo feature, which
/// another crate of the build could change.
pub(crate) fn crypto() -> Arc<CryptoProvider> {
    let kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}

/// The injected clock as rustls asks for it.
#[derive(Debug)]
pub(crate) struct ClockTime(pub(crate) Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.now().as_millis()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}
