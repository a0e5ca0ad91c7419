use std::{error::Error, path::Path, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use tokio::time::timeout;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::login::Token;
use crate::{KmsError, KmsOpenError, TransitConfig, kms::ATTEMPT};

/// Asks one server of OpenBao or Vault, over TLS unless it is on this machine. It follows no
/// redirects and asks no proxy.
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    namespace: Option<String>,
}

/// Why the server gave no answer of use.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The token is not accepted, or its policy does not allow this.
    Denied(String),
    /// Anything else.
    Failed(KmsError),
}

/// The `data` and `auth` of a good answer. Wiped when dropped: there may be a key in it.
pub(super) struct Answer(Zeroizing<Vec<u8>>);

impl Http {
    pub(super) fn open(config: &TransitConfig) -> Result<Self, KmsOpenError> {
        let plain = match config.address.scheme() {
            "https" => false,
            "http" if is_this_machine(&config.address) => true,
            _ => {
                return Err(KmsOpenError::Configuration(
                    "a transit engine is reached over https://, or over http:// on this machine"
                        .to_owned(),
                ));
            }
        };
        let roots = if plain { RootCertStore::empty() } else { roots(config.ca.as_deref())? };
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| KmsOpenError::Configuration(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = if plain { builder.https_or_http() } else { builder.https_only() };
        // HTTP/1: tokens and keys leave no trace in a table of headers that was seen before.
        let connector = builder.enable_http1().build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(8)
                .build(connector),
            base: config.address.as_str().trim_end_matches('/').to_owned(),
            namespace: config.namespace.clone(),
        })
    }

    /// Asks, and once more if the server did not answer or was not able to. Every question that is
    /// asked here can be asked twice.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&Token>,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer, Refusal> {
        let body = body.map(serde_json::to_vec).transpose().map_err(Refusal::unavailable)?;
        let body = body.map(Bytes::from).unwrap_or_default();
        let mut answer = self.attempt(&method, path, token, &body).await;
        if let Err(Refusal::Failed(KmsError::Unavailable(_))) = answer {
            answer = self.attempt(&method, path, token, &body).await;
        }
        answer
    }

    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        token: Option<&Token>,
        body: &Bytes,
    ) -> Result<Answer, Refusal> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.base))
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-vault-request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(token) = token {
            request = request.header("x-vault-token", token.header().clone());
        }
        let request = request.body(Full::new(body.clone())).map_err(Refusal::unavailable)?;
        let answer = async {
            let answer = self.client.request(request).await.map_err(Refusal::unavailable)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            // One buffer, wiped with the answer.
            let bytes = body.map_err(Refusal::unavailable)?.to_bytes();
            Ok((status, Answer(Zeroizing::new(bytes.into()))))
        };
        let late = |_| Refusal::unavailable("no answer within 800 ms");
        let (status, answer) = timeout(ATTEMPT, answer).await.map_err(late)??;
        if status.is_success() { Ok(answer) } else { Err(sorted(status, &answer)) }
    }
}

const LARGEST: usize = 64 * 1024;

impl Answer {
    /// The `data` of the answer.
    pub(super) fn data<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Refusal> {
        let Data { data } = serde_json::from_slice(&self.0).map_err(Refusal::unavailable)?;
        Ok(data)
    }

    /// The `auth` of the answer.
    pub(super) fn auth<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Refusal> {
        let Auth { auth } = serde_json::from_slice(&self.0).map_err(Refusal::unavailable)?;
        Ok(auth)
    }
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Auth<T> {
    auth: T,
}

#[derive(Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

impl Refusal {
    pub(super) fn unavailable(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(KmsError::unavailable(why))
    }

    /// The key is there and must not be used.
    pub(super) fn unfit(why: String) -> Self {
        Self::Failed(KmsError::refused(why))
    }

    pub(super) fn into_error(self) -> KmsError {
        match self {
            Self::Denied(why) => KmsError::refused(why),
            Self::Failed(error) => error,
        }
    }
}

/// Sorted by who can do something about it. The engine has one status for all that is wrong with a
/// request, so its words decide between a ciphertext that does not open and a key that is closed.
fn sorted(status: StatusCode, answer: &Answer) -> Refusal {
    let Errors { errors } = serde_json::from_slice(&answer.0).unwrap_or_default();
    let words = errors.join("; ");
    let why = format!("{status}: {words}");
    match status {
        StatusCode::BAD_REQUEST
            if words.contains("message authentication failed")
                || words.contains("invalid ciphertext") =>
        {
            Refusal::Failed(KmsError::Corrupt)
        }
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Refusal::Denied(why),
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Refusal::Failed(KmsError::refused(why))
        }
        status if status.is_redirection() => {
            Refusal::unavailable(format!("{why}: a standby; name an address of the active node"))
        }
        // Sealed, too many requests, a fault of theirs.
        _ => Refusal::unavailable(why),
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, KmsOpenError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = file {
        let bad =
            |error: Box<dyn Error + Send + Sync>| KmsOpenError::Authorities(path.to_owned(), error);
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| bad(error.into()))? {
            let certificate = certificate.map_err(|error| bad(error.into()))?;
            roots.add(certificate).map_err(|error| bad(error.into()))?;
        }
        if roots.is_empty() {
            return Err(bad("there is no certificate in it".into()));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(KmsOpenError::Configuration(
            "this machine has no authorities: name those of the transit engine with `ca`"
                .to_owned(),
        ));
    }
    Ok(roots)
}

fn is_this_machine(url: &Url) -> bool {
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
    fn check(status: u16, words: &str, expected: &str) {
        let body = format!(r#"{{"errors":["{words}"]}}"#).into_bytes();
        let status = StatusCode::from_u16(status).unwrap();
        let said = match sorted(status, &Answer(Zeroizing::new(body))) {
            Refusal::Denied(_) => "denied",
            Refusal::Failed(KmsError::Corrupt) => "corrupt",
            Refusal::Failed(KmsError::Refused(_)) => "refused",
            Refusal::Failed(KmsError::Unavailable(_)) => "unavailable",
        };
        assert_eq!(said, expected, "{status} {words}");
    }

    #[test]
    fn errors_are_sorted_by_who_can_do_something_about_them() {
        check(400, "cipher: message authentication failed", "corrupt");
        check(400, "invalid ciphertext: version is too new", "corrupt");
        check(400, "refusing to use soft-deleted key", "refused");
        check(400, "encryption key not found", "refused");
        check(400, "ciphertext or signature version is disallowed by policy (too old)", "refused");
        check(403, "permission denied", "denied");
        check(404, "no handler for route", "refused");
        check(307, "", "unavailable");
        check(412, "required index state not present", "unavailable");
        check(429, "rate limit quota exceeded", "unavailable");
        check(500, "internal error", "unavailable");
        check(503, "Vault is sealed", "unavailable");
    }

    #[test]
    fn without_tls_it_is_reached_on_this_machine_only() {
        for (url, usable) in [
            ("http://127.0.0.1:8200", true),
            ("http://[::1]:8200", true),
            ("http://localhost:8200", true),
            ("http://vault.example", false),
            ("http://10.0.0.1:8200", false),
            ("http://localhost.example", false),
        ] {
            let address = url.parse().unwrap();
            assert_eq!(is_this_machine(&address), usable, "{url}");
        }
    }
}
