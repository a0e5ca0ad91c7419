use super::*;

#[derive(Debug)]
pub(super) struct Lent {
    pub(super) base: Uri,
    pub(super) origins: Vec<Origin>,
    pub(super) header: HeaderName,
    pub(super) prefix: String,
    pub(super) provider: ProviderId,
    pub(super) credential: CredentialName,
    pub(super) version: u64,
    pub(super) model: String,
    pub(super) live: Arc<AtomicBool>,
    pub(super) kind: CredentialKind,
    pub(super) settings: Vec<(String, String)>,
    pub(super) address: Option<String>,
    pub(super) has_fallback: bool,
    pub(super) because: &'static str,
    pub(super) key_terms: KeyTerms,
    pub(super) secret: &'static str,
    pub(super) limited: Vec<Unit>,
    pub(super) price_version: String,
}

/// The header of a credential, as the broker finds it: from any call that the provider serves.
pub(super) fn proof(
    provider: &Provider,
    dialect: Dialect,
    kind: CredentialKind,
    settings: &[(String, String)],
    base: &str,
) -> (HeaderName, String) {
    let settings: Settings = settings.iter().cloned().collect();
    let filled = |template: &str| {
        let parts = template.split('/').map(|part| match part.split_once('}') {
            Some((_, verb)) => format!("m{verb}"),
            None => part.to_owned(),
        });
        parts.collect::<Vec<_>>().join("/")
    };
    let native: Vec<(Method, String)> = provider
        .native_paths()
        .iter()
        .map(|path| (path.method.clone(), filled(&path.template)))
        .collect();
    let mut calls: Vec<Call<'_>> = match dialect {
        Dialect::Native => {
            native.iter().map(|(method, path)| Call::Native { method, path }).collect()
        }
        Dialect::OpenAi | Dialect::Anthropic => {
            provider.operations(dialect).map(Call::Operation).collect()
        }
    };
    let found = calls.drain(..).find_map(|call| {
        let base_url = Some(base);
        let ask = Ask { call, model: "m", kind, settings: &settings, base_url, streams: false };
        provider.target(&ask).ok()
    });
    match found.map(|target| target.proof) {
        Some(Proof::Header { name, prefix }) => (name, prefix),
        _ => ("authorization".parse().unwrap(), "Bearer ".to_owned()),
    }
}

impl Loan for Lent {
    fn base_uri(&self) -> &Uri {
        &self.base
    }

    fn origins(&self) -> &[Origin] {
        &self.origins
    }

    fn header_name(&self) -> &HeaderName {
        &self.header
    }

    fn header_prefix(&self) -> &str {
        &self.prefix
    }

    fn provider(&self) -> &ProviderId {
        &self.provider
    }

    fn source(&self) -> Source {
        Source::Byok
    }

    fn credential(&self) -> &CredentialName {
        &self.credential
    }

    fn credential_version(&self) -> u64 {
        self.version
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn credential_kind(&self) -> &str {
        self.kind.as_str()
    }

    fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    fn has_fallback(&self) -> bool {
        self.has_fallback
    }

    fn because(&self) -> &str {
        self.because
    }

    fn key_terms(&self) -> &KeyTerms {
        &self.key_terms
    }

    fn is_live(&self) -> bool {
        self.live.load(Ordering::SeqCst)
    }

    fn limited(&self) -> Vec<Unit> {
        self.limited.clone()
    }

    fn account(&self) -> LoanAccount<'_> {
        LoanAccount {
            tenant: "tenants/acme",
            virtual_key: "tenants/acme/virtualKeys/k",
            credential_version: 3,
            lease_hash: Bytes::from_static(b"hash"),
            price_version: &self.price_version,
        }
    }

    fn unseal(&self) -> Result<Secret, UnsealError> {
        Ok(Secret::new(self.secret.as_bytes().to_vec()))
    }
}
