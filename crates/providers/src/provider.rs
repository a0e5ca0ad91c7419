use std::str::FromStr as _;

use domain::{Detection, Dialect, Failure, ProviderId};
use http::{HeaderName, HeaderValue, Method};
use regex::Regex;

use crate::{
    Answer, CatalogueError, CredentialForm, CredentialKind, Endpoint, KeyHint, MintFacts,
    NativeCall, NativePath, Operation, Proof, Quirk, SettingForm, Settings, Steer, UsageShape,
    answer::{Told, status_of_error},
    facts::{ErrorFacts, Facts},
    key_test::TestForm,
    target::Place,
};

mod surface;

pub(crate) use surface::Surface;

/// What is true of one provider.
#[derive(Clone, Debug)]
pub struct Provider {
    id: ProviderId,
    aliases: Vec<String>,
    name: String,
    base_url: Option<String>,
    regional_base_url: Option<String>,
    /// What this deployment has put in the place of the provider's addresses.
    moved_to: Option<String>,
    /// What this deployment has put in the place of the token service's address.
    tokens_at: Option<String>,
    speaks: Dialect,
    pub(crate) detect_rank: u8,
    detect: Vec<Regex>,
    is_gateway: bool,
    detect_also: Vec<ProviderId>,
    models: Vec<String>,
    quirks: Vec<Quirk>,
    settings: Vec<SettingForm>,
    credentials: Vec<CredentialForm>,
    surfaces: Vec<Surface>,
    forward: Vec<HeaderName>,
    pass_back: Vec<HeaderName>,
    query: Vec<String>,
    native: Vec<NativePath>,
    steers: Vec<Steer>,
    errors: Vec<ErrorFacts>,
    pub(crate) tests: Vec<TestForm>,
    mints: Vec<MintFacts>,
}

impl Provider {
    pub(crate) fn new(
        facts: Facts,
        shapes: &std::collections::BTreeMap<String, UsageShape>,
    ) -> Result<Self, CatalogueError> {
        let id = |slug: &str| slug.parse().map_err(|e| CatalogueError::invalid("slug", &e));
        let surfaces = facts.dialects.into_iter();
        let wrong = facts.key.wrong.into_iter().map(|wrong| (wrong.prefix, wrong.means));
        let wrong = wrong.collect::<Vec<_>>();
        let credentials = facts.credentials.into_iter();
        let settings = facts.settings.into_iter();
        let tests = facts.key_tests.into_iter().map(TestForm::new);
        Ok(Self {
            id: id(&facts.slug)?,
            aliases: facts.aliases,
            name: facts.name,
            base_url: facts.base_url,
            regional_base_url: facts.regional_base_url,
            moved_to: None,
            tokens_at: None,
            speaks: dialect(&facts.speaks)?,
            detect_rank: facts.detect_rank,
            detect: regexes(&facts.detect)?,
            is_gateway: facts.gateway,
            detect_also: facts.detect_also.iter().map(|slug| id(slug)).collect::<Result<_, _>>()?,
            models: facts.models,
            quirks: facts.quirks,
            settings: settings.map(|(n, f)| SettingForm::new(n, f)).collect::<Result<_, _>>()?,
            credentials: credentials
                .map(|facts| CredentialForm::new(facts, &wrong))
                .collect::<Result<_, _>>()?,
            surfaces: surfaces
                .map(|(word, facts)| Surface::new(&word, facts, shapes))
                .collect::<Result<_, _>>()?,
            forward: header_names(&facts.headers.forward)?,
            pass_back: header_names(&facts.headers.pass_back)?,
            query: facts.native.query,
            native: facts.native.paths.iter().map(NativePath::new).collect::<Result<_, _>>()?,
            steers: facts.steers,
            errors: facts.errors,
            tests: tests.collect::<Result<_, _>>()?,
            mints: facts.mints,
        })
    }

    /// Its slug.
    pub fn id(&self) -> &ProviderId {
        &self.id
    }

    /// What else it is called on input; never written out.
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dialect of its own API, which decides the shape of errors on native paths.
    pub fn speaks(&self) -> Dialect {
        self.speaks
    }

    /// Well-known models of today, for lists. The provider serves others too.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// The ways in which it differs from what a caller expects.
    pub fn quirks(&self) -> &[Quirk] {
        &self.quirks
    }

    /// The kinds of credentials that it takes; the first is the usual one.
    pub fn credential_forms(&self) -> &[CredentialForm] {
        &self.credentials
    }

    /// The settings that its credentials may have.
    pub fn setting_forms(&self) -> &[SettingForm] {
        &self.settings
    }

    /// What can be minted at it.
    pub fn mints(&self) -> &[MintFacts] {
        &self.mints
    }

    /// The dialects in which it can be called.
    pub fn dialects(&self) -> impl Iterator<Item = Dialect> + '_ {
        self.surfaces.iter().map(|surface| surface.dialect)
    }

    /// Whether calls in this dialect can go out with a credential of this kind: the provider serves it, and
    /// an endpoint that may or may not serve it is said to.
    pub fn serves(&self, dialect: Dialect, kind: CredentialKind, settings: &Settings) -> bool {
        let form = self.credential_form(kind);
        let settings = form.map(|form| settings.with_defaults(&form.defaults));
        settings.is_ok_and(|settings| self.served_surface(dialect, &settings).is_some())
    }

    /// What it serves in this dialect.
    pub fn operations(&self, dialect: Dialect) -> impl Iterator<Item = Operation> + '_ {
        self.surface(dialect).into_iter().flat_map(|surface| surface.operations.keys().copied())
    }

    /// What does not work in this dialect, for people.
    pub fn gaps(&self, dialect: Dialect) -> &[String] {
        self.surface(dialect).map(|surface| &*surface.gaps).unwrap_or_default()
    }

    /// Where answers of this operation say what was used.
    pub fn usage(&self, operation: Operation) -> Option<&UsageShape> {
        self.surface(operation.dialect())?.usage.get(&operation)
    }

    /// The shapes in which answers of its own API say what was used.
    pub fn native_usage(&self) -> &[UsageShape] {
        self.surface(Dialect::Native).map(|surface| &*surface.native_usage).unwrap_or_default()
    }

    /// Whether each credential must bring an address.
    pub fn needs_base_url(&self) -> bool {
        self.base_url.is_none() && self.moved_to.is_none()
    }

    /// Where calls in this dialect go at the provider's own address with the usual kind of credential;
    /// `None` when it does not serve the dialect, or where they go depends on the credential.
    pub fn endpoint(&self, dialect: Dialect) -> Option<Endpoint> {
        self.endpoint_of(dialect, None)
    }

    /// Where calls in this dialect go at a credential's own address, which may be written with or
    /// without the path of the provider's dialects.
    pub fn endpoint_at(&self, dialect: Dialect, base_url: &str) -> Option<Endpoint> {
        self.endpoint_of(dialect, Some(base_url))
    }

    /// The address that this deployment has put in the place of the provider's own.
    pub fn moved_to(&self) -> Option<&str> {
        self.moved_to.as_deref()
    }

    /// The headers that calls in this dialect have even when the caller sends none of that name.
    pub fn extra_headers(&self, dialect: Dialect) -> &[(HeaderName, HeaderValue)] {
        self.surface(dialect).map(|surface| &*surface.extra).unwrap_or_default()
    }

    /// The headers of a caller that go on to the provider, beside those that every call has.
    pub fn forward_headers(&self) -> &[HeaderName] {
        &self.forward
    }

    /// The headers of an answer that go back to the caller, beside those that every answer has.
    pub fn pass_back_headers(&self) -> &[HeaderName] {
        &self.pass_back
    }

    /// The parts of a native call's query that go on.
    pub fn forward_query(&self) -> &[String] {
        &self.query
    }

    /// The calls of its own API that may be passed through.
    pub fn native_paths(&self) -> &[NativePath] {
        &self.native
    }

    /// What a request's body must not hold, in whichever format it is.
    pub fn steers(&self) -> &[Steer] {
        &self.steers
    }

    /// Finds the call of its own API that this request makes; `None` when it may not pass through.
    pub fn native_call<'a>(&self, method: &Method, path: &'a str) -> Option<NativeCall<'_, 'a>> {
        self.native.iter().find_map(|native| native.matches(method, path))
    }

    /// What the form of a key says about it, taken for the usual kind of credential. A hint for people,
    /// never a reason to refuse by itself.
    pub fn check_key(&self, key: &[u8]) -> KeyHint<'_> {
        self.credentials.first().map_or(KeyHint::Plausible, |form| form.check(key))
    }

    /// Whose matter an answer is; `None` for one that is no failure. What HTTP says by its status is
    /// corrected by what is known of the provider.
    pub fn failure(&self, answer: Answer<'_>) -> Option<Failure> {
        let told = Told::read(answer);
        let retry_after = told.retry_after();
        let known = self.errors.iter().find(|error| told.matches(&error.when));
        known.map_or_else(
            || Failure::of_status(answer.status, retry_after),
            |error| Some(error.means.failure(retry_after)),
        )
    }

    /// The status that an error stands for which came in an answer with status 200, or in the first event
    /// of one; `None` when it is no error, and of a provider that does not do so.
    pub fn error_in_success(&self, body: &[u8]) -> Option<u16> {
        if !self.hides_errors() {
            return None;
        }
        serde_json::from_slice(body).ok().as_ref().and_then(status_of_error)
    }

    /// Whether an error may come in an answer with status 200.
    pub fn hides_errors(&self) -> bool {
        self.quirks.contains(&Quirk::ErrorsInSuccess)
    }

    /// Whether the model's name is one of this provider's.
    pub(crate) fn detects(&self, model: &str) -> bool {
        self.detect.iter().any(|rule| rule.is_match(model))
    }

    pub(crate) fn is_gateway(&self) -> bool {
        self.is_gateway
    }

    /// What a name that this provider detects says.
    pub(crate) fn detection(&self) -> Detection {
        Detection::One { provider: self.id.clone(), also: self.detect_also.clone() }
    }

    /// Whether this is the provider's slug or an alias.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.id.as_str() == name || self.aliases.iter().any(|alias| alias == name)
    }

    pub(crate) fn set_base_url(&mut self, base_url: &str) {
        self.moved_to = Some(self.root_of(base_url).to_owned());
    }

    pub(crate) fn set_token_origin(&mut self, origin: &str) {
        self.tokens_at = Some(origin.to_owned());
    }

    /// An address of the token service, where this deployment has it.
    pub(crate) fn token_url(&self, url: String) -> String {
        let Some(origin) = &self.tokens_at else { return url };
        let after = url.split_once("://").map_or("", |(_, after)| after);
        let path = after.find('/').and_then(|at| after.get(at..)).unwrap_or_default();
        format!("{origin}{path}")
    }

    pub(crate) fn root_template<'a>(
        &'a self,
        of_dialect: Option<&'a str>,
        settings: &Settings,
    ) -> Option<&'a str> {
        let regional = self.regional_base_url.as_deref();
        let regional = regional.filter(|_| settings.get("region").is_some());
        self.moved_to.as_deref().or(of_dialect).or(regional).or(self.base_url.as_deref())
    }

    /// The address without the path of a dialect, so that `https://host` and `https://host/v1` mean
    /// the same.
    pub(crate) fn root_of<'a>(&self, base_url: &'a str) -> &'a str {
        let base_url = base_url.trim_end_matches('/');
        let paths = self.surfaces.iter().map(|surface| &*surface.path);
        paths
            .filter(|path| !path.is_empty())
            .find_map(|path| base_url.strip_suffix(path))
            .unwrap_or(base_url)
    }

    pub(crate) fn surface(&self, dialect: Dialect) -> Option<&Surface> {
        self.surfaces.iter().find(|surface| surface.dialect == dialect)
    }

    /// The same, as far as the settings of a credential do not leave it out.
    pub(crate) fn served_surface(&self, dialect: Dialect, settings: &Settings) -> Option<&Surface> {
        let named = settings.get("dialects");
        let served = dialect == Dialect::Native
            || named.is_none_or(|named| named.split(',').any(|one| one == dialect.as_str()));
        self.surface(dialect).filter(|_| served)
    }

    fn endpoint_of(&self, dialect: Dialect, base_url: Option<&str>) -> Option<Endpoint> {
        let form = self.credentials.first()?;
        // Without an account or project of its own a credential would follow the caller's.
        let settings = self.checked_settings(form, &Settings::default()).ok()?;
        let surface = self.served_surface(dialect, &settings)?;
        let place = Place { provider: self, form, settings: &settings, base_url, model: "" };
        let root = place.root_in(surface).ok().filter(|root| !root.is_empty())?;
        let path = place.fill(&surface.path).ok()?;
        let Proof::Header { name, prefix } = place.proof(dialect).ok()? else { return None };
        Some(Endpoint {
            base_url: format!("{root}{path}"),
            header_name: name,
            header_prefix: prefix,
            extra: surface.extra.clone(),
        })
    }
}

pub(crate) fn dialect(word: &str) -> Result<Dialect, CatalogueError> {
    Dialect::from_str(word).map_err(|()| CatalogueError::invalid("dialect", &word))
}

fn regexes(rules: &[String]) -> Result<Vec<Regex>, CatalogueError> {
    let compile =
        |rule: &String| Regex::new(rule).map_err(|e| CatalogueError::invalid("detect", &e));
    rules.iter().map(compile).collect()
}

fn header_names(names: &[String]) -> Result<Vec<HeaderName>, CatalogueError> {
    names.iter().map(|name| header_name(name)).collect()
}

pub(crate) fn header_name(name: &str) -> Result<HeaderName, CatalogueError> {
    name.parse().map_err(|_| CatalogueError::invalid("header", &name))
}
