use std::borrow::Cow;

use domain::{Dialect, Origin};
use http::{HeaderName, HeaderValue, Method, header::AUTHORIZATION};

use crate::{
    CredentialForm, CredentialKind, Endpoint, NativeCall, NoTarget, Operation, Provider, Rewrite,
    Settings,
    kind::Sends,
    provider::Surface,
    settings::{fill, google_host, path_segment, path_segments},
};

/// A call, as far as it matters for where it goes.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// What is called.
    pub call: Call<'a>,
    /// The model, without a `provider/` in front; empty when the call names none.
    pub model: &'a str,
    /// What kind of credential the call goes out with.
    pub kind: CredentialKind,
    /// What that credential says beside its secret.
    pub settings: &'a Settings,
    /// The credential's own address, which takes the place of the provider's.
    pub base_url: Option<&'a str>,
    /// Whether a stream is asked for.
    pub streams: bool,
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// Something in the format of OpenAI or Anthropic.
    Operation(Operation),
    /// The provider's own API.
    Native {
        /// The method.
        method: &'a Method,
        /// The path, as the caller wrote it.
        path: &'a str,
    },
}

/// Where a call goes, and what must be done to it on the way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Scheme, host and port.
    pub origin: Origin,
    /// The path that all calls of this credential, dialect and model have in common.
    pub base_path: String,
    /// What follows it for this call.
    pub path: String,
    /// The query, without `?`.
    pub query: Option<String>,
    /// The model as the provider expects it; where the call names one, it takes the place of the
    /// caller's.
    pub model: String,
    /// How the secret, or what is minted of it, goes on the call.
    pub proof: Proof,
    /// Headers that are always sent.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers that are sent when the caller sends none of that name.
    pub defaults: Vec<(HeaderName, HeaderValue)>,
    /// Changes to the body.
    pub rewrites: Vec<Rewrite>,
}

/// How a secret proves that a call may be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Proof {
    /// In a header, with something in front.
    Header {
        /// The header.
        name: HeaderName,
        /// What stands in front.
        prefix: String,
    },
    /// By a signature of AWS (Signature Version 4) over the request.
    AwsSignature {
        /// The service for which it is made.
        service: String,
        /// The region for which it is made.
        region: String,
    },
    /// Not at all.
    Nothing,
}

/// What templates are filled from.
pub(crate) struct Place<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) form: &'a CredentialForm,
    pub(crate) settings: &'a Settings,
    pub(crate) base_url: Option<&'a str>,
    pub(crate) model: &'a str,
}

impl Provider {
    /// Where a call goes, and what must be done to it on the way.
    pub fn target(&self, ask: &Ask<'_>) -> Result<Target, NoTarget> {
        let form = self.credential_form(ask.kind)?;
        let settings = self.checked_settings(form, ask.settings)?;
        let dialect = match ask.call {
            Call::Operation(operation) => operation.dialect(),
            Call::Native { .. } => Dialect::Native,
        };
        let surface = self.served_surface(dialect, &settings);
        let surface = surface.ok_or_else(|| self.not_served(dialect, &settings))?;
        // A deployment that is set takes the place of whatever model a call names.
        let model =
            settings.get("deployment").map_or_else(|| surface.model(ask.model), Cow::Borrowed);
        let base_url = ask.base_url;
        let place = Place { provider: self, form, settings: &settings, base_url, model: &model };
        let root = place.root_in(surface)?;
        let origin = Origin::of_url(&root)
            .map_err(|source| NoTarget::InvalidAddress { provider: self.slug(), source })?;
        let (prefix, path, query) = match ask.call {
            Call::Operation(operation) => {
                self.operation_path(surface, operation, ask, &settings)?
            }
            Call::Native { method, path } => {
                let call = self.native_call(method, path);
                let call =
                    call.ok_or_else(|| NoTarget::NativeCallNotServed { provider: self.slug() })?;
                (surface.path.clone(), self.native_path(&place, call, path, ask.model)?, None)
            }
        };
        let base_path = format!("{}{}", path_in(&root), place.fill(&prefix)?);
        let mut rewrites = surface.rewrites.clone();
        // A model that moves to the path is not in the body; one that only counts stays there.
        if matches!(ask.call, Call::Operation(_)) && path.contains("{model}") {
            rewrites.push(Rewrite::Drop("model".to_owned()));
        }
        let asks =
            matches!(ask.call, Call::Operation(operation) if surface.asks_for_usage(operation));
        if ask.streams && asks {
            rewrites.push(Rewrite::AskForUsage);
        }
        Ok(Target {
            origin,
            base_path,
            path: match ask.call {
                Call::Operation(_) => place.fill(&path)?,
                Call::Native { .. } => path,
            },
            query: query.map(|query| place.fill(&query)).transpose()?,
            proof: place.proof(dialect)?,
            headers: place.setting_headers(),
            defaults: surface.extra.clone(),
            rewrites,
            model: model.into_owned(),
        })
    }

    /// Where calls of one dialect go with a credential, whatever they ask for.
    pub fn place(
        &self,
        dialect: Dialect,
        kind: CredentialKind,
        settings: &Settings,
        base_url: Option<&str>,
        model: &str,
    ) -> Result<Endpoint, NoTarget> {
        let form = self.credential_form(kind)?;
        let settings = self.checked_settings(form, settings)?;
        let surface = self.served_surface(dialect, &settings);
        let surface = surface.ok_or_else(|| self.not_served(dialect, &settings))?;
        let model = settings.get("deployment").map_or_else(|| surface.model(model), Cow::Borrowed);
        let place = Place { provider: self, form, settings: &settings, base_url, model: &model };
        let root = place.root_in(surface)?;
        Origin::of_url(&root)
            .map_err(|source| NoTarget::InvalidAddress { provider: self.slug(), source })?;
        let variant = surface.variant.as_ref();
        let variant = variant.filter(|variant| settings.get(&variant.setting).is_some());
        let prefix = variant.map_or(&surface.path, |variant| &variant.path);
        let (header_name, header_prefix) = match place.proof(dialect)? {
            Proof::Header { name, prefix } => (name, prefix),
            // A name has to stand there; nothing is sent in it.
            Proof::AwsSignature { .. } | Proof::Nothing => (AUTHORIZATION, String::new()),
        };
        Ok(Endpoint {
            base_url: format!("{}{}", root.trim_end_matches('/'), place.fill(prefix)?),
            header_name,
            header_prefix,
            extra: surface.extra.clone(),
        })
    }

    /// The path of a call of the provider's own API: as the caller wrote it, but for what the credential
    /// says and for a model in the place of the caller's.
    fn native_path(
        &self,
        place: &Place<'_>,
        call: NativeCall<'_, '_>,
        path: &str,
        model: &str,
    ) -> Result<String, NoTarget> {
        let named = call.model_name();
        let is_replaced = named.as_deref().is_some_and(|named| !model.is_empty() && model != named);
        let path = if is_replaced {
            let replaced = call.path_with(path, model);
            replaced.ok_or_else(|| NoTarget::ModelNotReplaceable {
                provider: self.slug(),
                model: model.to_owned(),
            })?
        } else {
            path.to_owned()
        };
        let Some(template) = &call.path.upstream else {
            // It matched a template without a part that is not fixed or checked, so it means itself.
            return Ok(path);
        };
        let named = named.as_deref().filter(|_| !is_replaced);
        let model = named.unwrap_or(if is_replaced { model } else { place.model });
        Place { model, ..*place }.fill(template)
    }

    fn operation_path(
        &self,
        surface: &Surface,
        operation: Operation,
        ask: &Ask<'_>,
        settings: &Settings,
    ) -> Result<(String, String, Option<String>), NoTarget> {
        let streams = surface.stream_operations.get(&operation).filter(|_| ask.streams);
        let Some(path) = streams.or_else(|| surface.operations.get(&operation)) else {
            let served = surface.operations.keys().map(|served| served.as_str());
            return Err(NoTarget::OperationNotServed {
                provider: self.slug(),
                operation,
                served: served.collect::<Vec<_>>().join(", "),
            });
        };
        let variant = surface.variant.as_ref().filter(|variant| {
            variant.operations.contains(&operation) && settings.get(&variant.setting).is_some()
        });
        Ok(match variant {
            Some(variant) => (variant.path.clone(), path.clone(), Some(variant.query.clone())),
            None => (surface.path.clone(), path.clone(), None),
        })
    }

    /// The form of this kind of credential, if the provider takes it.
    pub fn credential_form(&self, kind: CredentialKind) -> Result<&CredentialForm, NoTarget> {
        self.credential_forms().iter().find(|form| form.kind == kind).ok_or_else(|| {
            let takes = self.credential_forms().iter().map(|form| form.kind.as_str());
            let takes = takes.collect::<Vec<_>>().join(", ");
            NoTarget::WrongCredentialKind { provider: self.slug(), kind, takes }
        })
    }

    /// Checks what a credential says beside its secret, before it is stored or used: everything that
    /// is needed is there, nothing is there that is not known, and each has the right form.
    pub fn check_settings(
        &self,
        kind: CredentialKind,
        settings: &Settings,
    ) -> Result<(), NoTarget> {
        self.checked_settings(self.credential_form(kind)?, settings).map(|_| ())
    }

    pub(crate) fn checked_settings(
        &self,
        form: &CredentialForm,
        settings: &Settings,
    ) -> Result<Settings, NoTarget> {
        let settings = settings.with_defaults(&form.defaults);
        for (name, value) in settings.iter() {
            let may = form.requires.iter().chain(&form.accepts).any(|known| known == name);
            let known = self.setting_forms().iter().find(|known| known.name == name);
            let Some(known) = known.filter(|_| may) else {
                let known = form.requires.iter().chain(&form.accepts).map(String::as_str);
                let known = known.collect::<Vec<_>>().join(", ");
                return Err(NoTarget::UnknownSetting {
                    provider: self.slug(),
                    kind: form.kind,
                    setting: name.chars().filter(char::is_ascii_graphic).take(63).collect(),
                    known: if known.is_empty() { "none".to_owned() } else { known },
                });
            };
            if !known.fits(value) {
                let (setting, looks_like) = (known.name.clone(), known.looks_like.clone());
                return Err(NoTarget::InvalidSetting {
                    provider: self.slug(),
                    setting,
                    looks_like,
                });
            }
        }
        let missing = form.requires.iter().find(|name| settings.get(name).is_none());
        missing.map_or(Ok(settings), |name| Err(self.missing_setting(name)))
    }

    fn missing_setting(&self, name: &str) -> NoTarget {
        let known = self.setting_forms().iter().find(|known| known.name == name);
        NoTarget::MissingSetting {
            provider: self.slug(),
            setting: name.to_owned(),
            help: known.map(|known| known.help.clone()).unwrap_or_default(),
        }
    }

    fn not_served(&self, dialect: Dialect, settings: &Settings) -> NoTarget {
        let served = self.dialects().filter(|one| self.served_surface(*one, settings).is_some());
        let served = served.map(Dialect::as_str).collect::<Vec<_>>().join(", ");
        NoTarget::DialectNotServed { provider: self.slug(), dialect, served }
    }

    fn slug(&self) -> String {
        self.id().to_string()
    }
}

/// What follows scheme, host and port.
fn path_in(url: &str) -> &str {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    after.find('/').and_then(|at| after.get(at..)).unwrap_or_default()
}

impl Place<'_> {
    /// Scheme and host, and the path of a credential's own address: that address, what this
    /// deployment has put in the provider's place, the dialect's, or the provider's.
    pub(crate) fn root(&self, of_dialect: Option<&str>) -> Result<String, NoTarget> {
        if let Some(base_url) = self.base_url {
            return Ok(self.provider.root_of(base_url).to_owned());
        }
        let template = self.provider.root_template(of_dialect, self.settings);
        let provider = || self.provider.slug();
        self.fill(template.ok_or_else(|| NoTarget::MissingAddress { provider: provider() })?)
    }

    /// The same for calls in a dialect.
    pub(crate) fn root_in(&self, surface: &Surface) -> Result<String, NoTarget> {
        let mut root = self.root(surface.base_url.as_deref())?;
        if self.base_url.is_some() && root.ends_with(&surface.cut) {
            root.truncate(root.len() - surface.cut.len());
        }
        Ok(root)
    }

    pub(crate) fn fill(&self, template: &str) -> Result<String, NoTarget> {
        let cut = self.form.cut.as_deref().unwrap_or_default();
        let template = if cut.is_empty() { template.into() } else { template.replace(cut, "") };
        fill(&template, |name| self.value(name)).map_err(|name| match &*name {
            "model" | "model_path" | "deployment" => NoTarget::MissingModel {
                provider: self.provider.slug(),
                hint: if name == "deployment" {
                    "; a model there is the name of a deployment"
                } else {
                    ""
                },
            },
            "google_host" => self.provider.missing_setting("location"),
            name => self.provider.missing_setting(name),
        })
    }

    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let model = Some(self.model).filter(|model| !model.is_empty());
        match name {
            "model" => model.map(path_segment).map(Cow::Owned),
            "model_path" => model.map(path_segments).map(Cow::Owned),
            "deployment" => {
                let set = self.settings.get("deployment").or(model);
                set.map(path_segment).map(Cow::Owned)
            }
            "google_host" => self.settings.get("location").map(google_host).map(Cow::Owned),
            // Host names are compared as text, and only their lower case is one.
            "resource" => self.settings.get(name).map(|name| name.to_ascii_lowercase().into()),
            setting => self.settings.get(setting).map(Cow::Borrowed),
        }
    }

    pub(crate) fn proof(&self, dialect: Dialect) -> Result<Proof, NoTarget> {
        Ok(match &self.form.sends {
            Sends::Nothing => Proof::Nothing,
            Sends::Header(name, prefix) => {
                Proof::Header { name: name.clone(), prefix: (*prefix).to_owned() }
            }
            Sends::Setting => {
                let name = self.settings.get("header_name").and_then(|name| name.parse().ok());
                let name = name.ok_or_else(|| self.provider.missing_setting("header_name"))?;
                let prefix = self.settings.get("header_prefix").map(|word| format!("{word} "));
                Proof::Header { name, prefix: prefix.unwrap_or_default() }
            }
            Sends::Own => {
                let surface = self.provider.surface(dialect);
                let surface =
                    surface.ok_or_else(|| self.provider.not_served(dialect, self.settings))?;
                Proof::Header {
                    name: surface.header_name.clone(),
                    prefix: surface.header_prefix.clone(),
                }
            }
        })
    }

    pub(crate) fn setting_headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let headers = self.form.setting_headers.iter().filter_map(|(name, setting)| {
            let value = HeaderValue::from_str(self.settings.get(setting)?).ok()?;
            Some((name.clone(), value))
        });
        headers.collect()
    }
}
