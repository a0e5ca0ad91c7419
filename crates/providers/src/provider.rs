use std::str::FromStr as _;

use domain::{Dialect, ProviderId};
use http::{HeaderName, HeaderValue, Method};
use regex::Regex;

use crate::{
    CatalogueError, Endpoint, KeyHint, NativeCall, NativePath,
    facts::{DialectFacts, Facts},
    key::KeyForm,
};

/// What is true of one provider.
#[derive(Clone, Debug)]
pub struct Provider {
    id: ProviderId,
    aliases: Vec<String>,
    name: String,
    base_url: Option<String>,
    speaks: Dialect,
    pub(crate) detect_rank: u8,
    detect: Vec<Regex>,
    models: Vec<String>,
    surfaces: Vec<Surface>,
    forward: Vec<HeaderName>,
    pass_back: Vec<HeaderName>,
    native: Vec<NativePath>,
    key: KeyForm,
}

/// One dialect that a provider serves.
#[derive(Clone, Debug)]
struct Surface {
    dialect: Dialect,
    path: String,
    header_name: HeaderName,
    header_prefix: String,
    extra: Vec<(HeaderName, HeaderValue)>,
}

impl Provider {
    pub(crate) fn new(facts: Facts) -> Result<Self, CatalogueError> {
        let slug = facts.slug.parse();
        let surfaces = facts.dialects.iter().map(|(word, facts)| Surface::new(word, facts));
        Ok(Self {
            id: slug.map_err(|error| CatalogueError::invalid("slug", &error))?,
            aliases: facts.aliases,
            name: facts.name,
            base_url: facts.base_url,
            speaks: dialect(&facts.speaks)?,
            detect_rank: facts.detect_rank,
            detect: regexes(&facts.detect)?,
            models: facts.models,
            surfaces: surfaces.collect::<Result<_, _>>()?,
            forward: header_names(&facts.headers.forward)?,
            pass_back: header_names(&facts.headers.pass_back)?,
            native: facts.native.paths.iter().map(NativePath::new).collect::<Result<_, _>>()?,
            key: KeyForm::new(facts.key)?,
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

    /// The dialects in which it can be called.
    pub fn dialects(&self) -> impl Iterator<Item = Dialect> + '_ {
        self.surfaces.iter().map(|surface| surface.dialect)
    }

    /// Whether each credential must bring an address.
    pub fn needs_base_url(&self) -> bool {
        self.base_url.is_none()
    }

    /// Where calls in this dialect go at the provider's own address; `None` when it does not serve the
    /// dialect or has no address of its own.
    pub fn endpoint(&self, dialect: Dialect) -> Option<Endpoint> {
        self.surface(dialect)?.at(self.base_url.as_deref()?)
    }

    /// Where calls in this dialect go at a credential's own address, which may be written with or
    /// without the path of the provider's dialects.
    pub fn endpoint_at(&self, dialect: Dialect, base_url: &str) -> Option<Endpoint> {
        self.surface(dialect)?.at(self.root_of(base_url))
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

    /// The calls of its own API that may be passed through.
    pub fn native_paths(&self) -> &[NativePath] {
        &self.native
    }

    /// Finds the call of its own API that this request makes; `None` when it may not pass through.
    pub fn native_call<'a>(&'a self, method: &Method, path: &'a str) -> Option<NativeCall<'a>> {
        self.native.iter().find_map(|native| native.matches(method, path))
    }

    /// What the form of a key says about it. A hint for people, never a reason to refuse by itself.
    pub fn check_key(&self, key: &[u8]) -> KeyHint<'_> {
        self.key.check(key)
    }

    /// Whether the model's name is one of this provider's.
    pub(crate) fn detects(&self, model: &str) -> bool {
        self.detect.iter().any(|rule| rule.is_match(model))
    }

    /// Whether this is the provider's slug or an alias.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.id.as_str() == name || self.aliases.iter().any(|alias| alias == name)
    }

    pub(crate) fn set_base_url(&mut self, base_url: &str) {
        self.base_url = Some(self.root_of(base_url).to_owned());
    }

    /// The address without the path of a dialect, so that `https://host` and `https://host/v1` mean
    /// the same.
    fn root_of<'a>(&self, base_url: &'a str) -> &'a str {
        let base_url = base_url.trim_end_matches('/');
        let paths = self.surfaces.iter().map(|surface| &*surface.path);
        paths
            .filter(|path| !path.is_empty())
            .find_map(|path| base_url.strip_suffix(path))
            .unwrap_or(base_url)
    }

    fn surface(&self, dialect: Dialect) -> Option<&Surface> {
        self.surfaces.iter().find(|surface| surface.dialect == dialect)
    }
}

impl Surface {
    fn new(word: &str, facts: &DialectFacts) -> Result<Self, CatalogueError> {
        let extra = facts.extra.iter().map(|(name, value)| {
            let invalid = CatalogueError::invalid("extra", name);
            let value = HeaderValue::from_str(value).map_err(|_| invalid)?;
            Ok::<_, CatalogueError>((header_name(name)?, value))
        });
        Ok(Self {
            dialect: dialect(word)?,
            path: facts.path.clone(),
            header_name: header_name(&facts.header_name)?,
            header_prefix: facts.header_prefix.clone(),
            extra: extra.collect::<Result<_, _>>()?,
        })
    }

    fn at(&self, root: &str) -> Option<Endpoint> {
        (!root.is_empty()).then(|| Endpoint {
            base_url: format!("{root}{}", self.path),
            header_name: self.header_name.clone(),
            header_prefix: self.header_prefix.clone(),
            extra: self.extra.clone(),
        })
    }
}

fn dialect(word: &str) -> Result<Dialect, CatalogueError> {
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

fn header_name(name: &str) -> Result<HeaderName, CatalogueError> {
    name.parse().map_err(|_| CatalogueError::invalid("header", &name))
}
