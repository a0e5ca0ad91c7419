use domain::Dialect;
use http::{HeaderName, HeaderValue, Method};

use crate::{
    Answer, CatalogueError, CredentialKind, NoTarget, Proof, Provider, Settings, Verdict,
    answer::Told,
    facts::{KeyTestFacts, MatchFacts, ResultFacts},
    target::Place,
};

/// The request that shows whether a credential works. It costs nothing and runs no model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyTest {
    /// The method.
    pub method: Method,
    /// The whole address. Its host is the provider's, whatever the credential says.
    pub url: String,
    /// How the secret, or what is minted of it, goes on the request.
    pub proof: Proof,
    /// What else goes on it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body and its type.
    pub body: Option<(String, String)>,
}

/// How the credentials of a kind are tested, and how to read the answers.
#[derive(Clone, Debug)]
pub(crate) struct TestForm {
    kinds: Vec<CredentialKind>,
    secret_prefix: Option<String>,
    method: Method,
    base_url: Option<String>,
    path: String,
    dialect: Dialect,
    signed_for: Option<String>,
    body: Option<(String, String)>,
    results: Vec<(MatchFacts, Verdict)>,
}

impl TestForm {
    pub(crate) fn new(facts: KeyTestFacts) -> Result<Self, CatalogueError> {
        let method = facts.method.parse();
        Ok(Self {
            kinds: facts.kinds,
            secret_prefix: facts.secret_prefix,
            method: method.map_err(|error| CatalogueError::invalid("key_tests", &error))?,
            base_url: facts.base_url,
            path: facts.path,
            dialect: crate::provider::dialect(&facts.dialect)?,
            signed_for: facts.signed_for,
            body: facts.body.zip(facts.content_type),
            results: facts.results.into_iter().map(result).collect::<Result<_, _>>()?,
        })
    }

    fn is_for(&self, kind: CredentialKind, secret: &[u8]) -> bool {
        let prefix = self.secret_prefix.as_deref().unwrap_or_default();
        self.kinds.contains(&kind) && secret.starts_with(prefix.as_bytes())
    }
}

impl Provider {
    /// The request that tests a credential of this kind. Which one it is may depend on how the secret
    /// begins; nothing of the secret is in the request that is returned.
    ///
    /// `Ok(None)` when there is no way to test it.
    pub fn key_test(
        &self,
        kind: CredentialKind,
        secret: &[u8],
        settings: &Settings,
        base_url: Option<&str>,
    ) -> Result<Option<KeyTest>, NoTarget> {
        let form = self.credential_form(kind)?;
        let Some(test) = self.test_of(kind, secret) else { return Ok(None) };
        let settings = self.checked_settings(form, settings)?;
        let place =
            Place { provider: self, form, settings: &settings, base_url, model: TEST_MODEL };
        let own = test.base_url.as_deref();
        let root = match (&test.signed_for, own) {
            // Who signs is asked of the token service, wherever the models are.
            (Some(_), Some(own)) => self.token_url(place.fill(own)?),
            (Some(_) | None, own) => place.root(own)?,
        };
        let path = place.fill(&test.path)?;
        let proof = match &test.signed_for {
            None => place.proof(test.dialect)?,
            Some(service) => {
                let region = settings.get("region").unwrap_or_default().to_owned();
                Proof::AwsSignature { service: service.clone(), region }
            }
        };
        let mut headers = place.setting_headers();
        headers.extend(self.extra_headers(test.dialect).iter().cloned());
        Ok(Some(KeyTest {
            method: test.method.clone(),
            url: format!("{root}{path}"),
            proof,
            headers,
            body: test.body.clone(),
        }))
    }

    /// What an answer to [`Self::key_test`] shows.
    pub fn verdict(&self, kind: CredentialKind, secret: &[u8], answer: Answer<'_>) -> Verdict {
        let told = Told::read(answer);
        let results = self.test_of(kind, secret).map(|test| &*test.results).unwrap_or_default();
        let found = results.iter().find(|(when, _)| told.matches(when));
        found.map_or_else(|| by_status(&told), |(_, verdict)| *verdict)
    }

    fn test_of(&self, kind: CredentialKind, secret: &[u8]) -> Option<&TestForm> {
        self.tests.iter().find(|test| test.is_for(kind, secret))
    }
}

/// A status alone may come from whatever stands in front of a provider, or be about a network or a role:
/// a credential is called bad only by what the provider's own API says.
fn result(facts: ResultFacts) -> Result<(MatchFacts, Verdict), CatalogueError> {
    let ResultFacts { when, verdict } = facts;
    let says = when.code.is_some() || when.message.is_some() || when.pointer.is_some();
    if verdict.is_confirmed_bad() && !says {
        let rule = format!("{verdict:?} by the status {:?} alone", when.status);
        return Err(CatalogueError::invalid("key_tests", &rule));
    }
    Ok((when, verdict))
}

/// What a status shows of which the catalogue says nothing: as little as possible, so that no good
/// credential is called bad and no bad one good.
fn by_status(told: &Told<'_>) -> Verdict {
    match told.status() {
        200..=299 if told.is_json() => Verdict::Valid,
        402 => Verdict::NoQuota,
        401 | 403 => Verdict::RegionOrPermission,
        500..=599 => Verdict::Unreachable,
        _ => Verdict::Unverifiable,
    }
}

/// Counting the tokens of a word is free, and every project has this model.
const TEST_MODEL: &str = "gemini-2.5-flash";
