use domain::{CredentialName, Permit, Uid};
use providers::{CredentialKind, Provider, Settings};
use store::CredentialRow;
use strongroom_proto::v1::{self, credential::State};

use crate::{caller::Caller, core::Core, directory::Tenant, refused::Why};

/// The most models of one endpoint.
const MOST_MODELS: usize = 100;

/// The most credentials of one tenant.
const MOST_CREDENTIALS: usize = 1000;

impl Core {
    /// A new credential's row, from what was asked for. `custom` alone has an address and models.
    pub(super) fn new_row(
        &self,
        tenant: &Tenant,
        (caller, permit): (&Caller, &Permit),
        name: &CredentialName,
        asked: &v1::Credential,
    ) -> Result<CredentialRow, Why> {
        let known = self.catalogue.find(&asked.provider);
        let known = known.map_err(|error| Why::InvalidField(error.to_string()))?;
        if permit.longest_lease(known.id()).is_none() {
            return Err(self.access.refusal(caller));
        }
        let base_url = match (known.needs_base_url(), asked.base_url.is_empty()) {
            (true, false) => Some(self.endpoints.checked(&asked.base_url)?),
            (false, true) => None,
            (true, true) => {
                return Err(Why::InvalidField("base_url is needed: an https address".into()));
            }
            (false, false) => {
                return Err(Why::InvalidField("base_url is for provider `custom` only".into()));
            }
        };
        let kind = kind(known, &asked.kind)?;
        let settings = settings_of(known, kind, &asked.settings)?;
        let plain = |model: &String| {
            model.parse::<domain::ModelPattern>().is_ok_and(|p| p.exact().is_some())
        };
        if base_url.is_some() == asked.models.is_empty() || !asked.models.iter().all(plain) {
            return Err(Why::InvalidField(
                "models names the models of a `custom` endpoint, exactly, and nothing else".into(),
            ));
        }
        if asked.models.len() > MOST_MODELS || tenant.credentials.len() >= MOST_CREDENTIALS {
            return Err(Why::InvalidField(
                "a tenant has 1000 credentials at most, each with 100 models at most".into(),
            ));
        }
        if !(0..=1000).contains(&asked.priority) {
            return Err(Why::InvalidField("priority is from 0 to 1000".into()));
        }
        let now = self.clock.now();
        Ok(CredentialRow {
            uid: Uid::random()?,
            tenant_uid: tenant.row.uid,
            tenant: name.tenant.clone(),
            id: name.credential.clone(),
            provider: known.id().clone(),
            kind: kind.as_str().to_owned(),
            settings: settings.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            enabled: asked.state() != State::Disabled,
            priority: if asked.priority == 0 { 100 } else { asked.priority },
            base_url,
            models: asked.models.clone(),
            last_four: String::new(),
            current_version: 1,
            rotation: None,
            revision: 1,
            created_at: now,
            updated_at: now,
            row_mac: [0; 36],
        })
    }
}

/// The kind that is asked for, or the provider's usual one.
fn kind(known: &Provider, asked: &str) -> Result<CredentialKind, Why> {
    let mut forms = known.credential_forms().iter();
    let form = forms.find(|form| asked.is_empty() || form.kind.as_str() == asked);
    form.map(|form| form.kind).ok_or_else(|| {
        let takes = known.credential_forms().iter().map(|form| form.kind.as_str());
        let takes = takes.collect::<Vec<_>>().join(", ");
        Why::InvalidField(format!("kind is not one that {} takes: {takes}", known.id()))
    })
}

/// What a credential says beside its secret, checked.
fn settings_of(
    known: &Provider,
    kind: CredentialKind,
    asked: &[v1::Setting],
) -> Result<Settings, Why> {
    let settings: Settings = asked.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
    if settings.iter().count() != asked.len() {
        return Err(Why::InvalidField("settings names one thing twice".into()));
    }
    let checked = known.check_settings(kind, &settings);
    checked.map_err(|error| Why::InvalidField(error.to_string()))?;
    Ok(settings)
}
