use std::{net::SocketAddr, path::Path, sync::Arc};

use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{ServerFiles, WitnessError, files::failed, read_private};

/// A socket that logs reach: over TLS, or on this machine alone.
pub struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Begins to listen. Without a certificate only addresses of this machine will do.
    pub async fn bind(
        address: SocketAddr,
        files: Option<&ServerFiles>,
    ) -> Result<Self, WitnessError> {
        if files.is_none() && !address.ip().is_loopback() {
            return Err(WitnessError::PlainBeyondLoopback);
        }
        let tls = files.map(acceptor).transpose()?;
        let named = address.to_string();
        let tcp = TcpListener::bind(address).await.map_err(failed(Path::new(&named)))?;
        Ok(Self { tcp, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.local_addr().ok()
    }
}

fn acceptor(files: &ServerFiles) -> Result<TlsAcceptor, WitnessError> {
    let not_pem = |path: &Path| {
        let path = path.to_owned();
        move |source: pem::Error| WitnessError::NotPem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(not_pem(&files.certificate))?;
    let key = read_private(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(not_pem(&files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
