use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use domain::Secret;
use rustls::{ServerConfig, crypto::aws_lc_rs, server::NoServerSessionStorage};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::ListenerTls;

/// Why the listener's certificate cannot be used.
#[derive(Debug, Error)]
pub enum ListenerTlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The key's file is open to others than its owner.
    #[error("{0} can be reached by others than its owner: give it mode 0600")]
    KeyExposed(PathBuf),
    /// A file is not PEM of the right kind.
    #[error("{path} holds no certificate or key in PEM")]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key do not go together.
    #[error("certificate and key cannot be used together")]
    Mismatch(#[from] rustls::Error),
}

/// TLS towards applications: TLS 1.3 only, by files that are read again when they change.
#[derive(Debug)]
pub(crate) struct ServerTls {
    files: ListenerTls,
    state: ArcSwap<State>,
}

#[derive(Debug)]
struct State {
    certificate: Vec<u8>,
    config: Arc<ServerConfig>,
    /// Of the certificate of the chain that ends first: when it does, and after how long, in seconds.
    ends: Option<(i64, i64)>,
}

impl ServerTls {
    pub(crate) fn load(files: ListenerTls) -> Result<Self, ListenerTlsError> {
        let state = ArcSwap::from_pointee(State::load(&files)?);
        Ok(Self { files, state })
    }

    /// What the next handshake uses.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state.load().config)
    }

    /// Reads the files again and again for as long as it is polled.
    pub(crate) async fn watch(&self) {
        let mut ticks = interval(RELOAD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.renew();
            self.state.load().tell();
        }
    }

    /// Reads the files again when they have changed. Files that cannot be used leave the last good
    /// ones in force.
    fn renew(&self) {
        let changed = fs::read(&self.files.certificate)
            .is_ok_and(|certificate| certificate != self.state.load().certificate);
        if !changed {
            return;
        }
        match State::load(&self.files) {
            Ok(state) => {
                self.state.store(Arc::new(state));
                tracing::info!("the listener has a new certificate");
            }
            Err(error) => tracing::error!(%error, "the listener's new certificate is unusable"),
        }
    }
}

impl State {
    fn load(files: &ListenerTls) -> Result<Self, ListenerTlsError> {
        let certificate = read(&files.certificate)?;
        let not_pem = |path: &Path| {
            let path = path.to_owned();
            move |source| ListenerTlsError::NotPem { path, source }
        };
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(not_pem(&files.certificate))?;
        let ends = chain.iter().filter_map(ends).min();
        let mode = fs::metadata(&files.key).map(|meta| meta.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            return Err(ListenerTlsError::KeyExposed(files.key.clone()));
        }
        let key = Secret::new(read(&files.key)?);
        let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(not_pem(&files.key))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { certificate, config: Arc::new(config), ends })
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds of our time are exact in it")]
    fn tell(&self) {
        let Some((at, lifetime)) = self.ends else { return };
        metrics::gauge!("strongroom_proxy_certificate_expires_seconds").set(at as f64);
        metrics::gauge!("strongroom_proxy_certificate_lifetime_seconds").set(lifetime as f64);
    }
}

fn ends(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let at = validity.not_after.timestamp();
    Some((at, at.saturating_sub(validity.not_before.timestamp())))
}

fn read(path: &Path) -> Result<Vec<u8>, ListenerTlsError> {
    let unreadable = |source| ListenerTlsError::Unreadable { path: path.to_owned(), source };
    fs::read(path).map_err(unreadable)
}

const RELOAD_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
