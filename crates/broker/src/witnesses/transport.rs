use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use url::Host;

use crate::config::WitnessConfig;

pub(super) type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client for one witness: over TLS, by the machine's authorities or those of a file and no
/// others; without it on this machine only. It follows no redirects and asks no proxy.
pub(super) fn client(config: &WitnessConfig) -> anyhow::Result<Client> {
    let plain = match config.url.scheme() {
        "https" => false,
        "http" if is_this_machine(&config.url) => true,
        _ => bail!("a witness is reached over https://, or over http:// on this machine"),
    };
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(if plain { RootCertStore::empty() } else { roots(config)? })
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
    let builder = if plain { builder.https_or_http() } else { builder.https_only() };
    let connector = builder.enable_http1().build();
    Ok(legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector))
}

fn roots(config: &WitnessConfig) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.ca {
        let unreadable = || format!("the authorities in {}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).with_context(unreadable)? {
            roots.add(certificate.with_context(unreadable)?)?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        bail!("no authority for its certificate was found: name a file with `ca`");
    }
    Ok(roots)
}

fn is_this_machine(url: &url::Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, usable: bool) {
        let key = String::new();
        let config = WitnessConfig { url: url.parse().unwrap(), key, ca: None };
        let refused = client(&config).err().map(|error| error.to_string());
        let by_scheme = refused.is_some_and(|error| error.contains("https://"));
        assert_eq!(by_scheme, !usable, "{url}");
    }

    #[test]
    fn without_tls_a_witness_is_reached_on_this_machine_only() {
        check("https://witness.example", true);
        check("http://127.0.0.1:7080", true);
        check("http://[::1]:7080/prefix", true);
        check("http://localhost:7080", true);
        check("http://witness.example", false);
        check("http://10.0.0.1:7080", false);
        check("http://localhost.example", false);
        check("ftp://localhost", false);
    }
}
