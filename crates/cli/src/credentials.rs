use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::{Args, Subcommand};
use domain::{CredentialName, ProviderId};
use serde_json::json;
use strongroom_client::Broker;
use strongroom_proto::v1::{
    Credential, CredentialTest, DeleteCredentialRequest, DisableCredentialRequest,
    EnableCredentialRequest, GetCredentialRequest, ListCredentialsRequest, Setting,
    credential_test::Verdict,
};

use crate::{
    context::Context,
    erasure::ShredCredential,
    failure::Failure,
    names::{CredentialArg, TenantArg},
    output::{list, table},
    rotation::{self, Rotate, Show},
    secret_input,
    views::{CredentialView, verdict_word},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Stores a credential. Its secret comes from stdin, or from a prompt; it is sealed before it is
    /// sent, and no call ever gives it back.
    Put(Put),
    /// Lists a tenant's credentials.
    List {
        /// The tenant, such as `acme`.
        tenant: TenantArg,
    },
    /// Shows one credential, without its secret.
    Get(Named),
    /// Stores a new secret, from stdin or a prompt, and ends leases of the old one. With `--canary`,
    /// step by step and without an outage.
    Rotate(Rotate),
    /// Shows how far a rotation is; or takes it on, or back, by hand.
    Rotation(Show),
    /// Finds out whether a credential works, by asking its provider what costs nothing, and keeps what was
    /// found. Exits with 1 unless the provider accepts it.
    Test {
        /// The credential, such as `acme/openai-prod`.
        credential: CredentialArg,
    },
    /// Stops a credential from being lent and ends its leases.
    Disable(Named),
    /// Lets a disabled credential be lent again.
    Enable(Named),
    /// Deletes a credential and its stored versions. This cannot be undone.
    Delete(Delete),
    /// Erases a credential, so that no backup of the database brings it back. This cannot be undone.
    Shred(ShredCredential),
}

#[derive(Args, Debug)]
pub(crate) struct Put {
    /// The credential, such as `acme/openai-prod`.
    credential: CredentialArg,
    /// The provider's slug, such as `openai`, or `custom`.
    #[arg(long)]
    provider: ProviderId,
    /// Credentials of one provider are tried from the lowest number up; 100 when absent.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(0..=1000))]
    priority: i32,
    /// What kind of secret it is, such as `google_service_account`; absent: the provider's usual one.
    /// `docs/providers.md` lists them.
    #[arg(long)]
    kind: Option<String>,
    /// What goes with the secret, such as `region=eu-west-1`. Repeatable.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<Setting>,
    /// For `custom`: where calls go.
    #[arg(long)]
    base_url: Option<String>,
    /// For `custom`: the models it serves.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// Store the secret without trying it out at its provider first.
    #[arg(long)]
    no_test: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The credential, such as `acme/openai-prod`.
    credential: CredentialArg,
    /// Do it only if the credential is still as it was when this was read.
    #[arg(long)]
    etag: Option<String>,
}

impl Named {
    pub(crate) fn name(&self) -> &CredentialName {
        &self.credential.0
    }

    pub(crate) fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    #[command(flatten)]
    named: Named,
    /// Delete without being asked.
    #[arg(long)]
    yes: bool,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let broker = context.broker()?;
        let credential = match self {
            Self::Put(put) => warned(context, put.run(&broker).await?),
            Self::List { tenant } => return list_all(context, &broker, &tenant).await,
            Self::Get(named) => {
                let request = GetCredentialRequest { name: named.credential.0.to_string() };
                broker.credentials().get_credential(request).await?.into_inner()
            }
            Self::Rotate(rotate) => return rotate.run(context, &broker).await,
            Self::Rotation(show) => return show.run(context, &broker).await,
            Self::Test { credential } => return test(context, &broker, &credential).await,
            Self::Disable(Named { credential, etag }) => {
                let etag = etag.unwrap_or_default();
                let request = DisableCredentialRequest { name: credential.0.to_string(), etag };
                broker.credentials().disable_credential(request).await?.into_inner()
            }
            Self::Enable(Named { credential, etag }) => {
                let etag = etag.unwrap_or_default();
                let request = EnableCredentialRequest { name: credential.0.to_string(), etag };
                broker.credentials().enable_credential(request).await?.into_inner()
            }
            Self::Shred(shred) => return shred.run(context).await,
            Self::Delete(delete) => return delete.run(context, &broker).await,
        };
        context.output.show(&CredentialView::from(credential), human)
    }
}

/// Says what is odd about a secret that was stored, and what a test of it has shown unless all is well.
pub(crate) fn warned(context: &Context, credential: Credential) -> Credential {
    warnings(context, &credential);
    if let Some(test) = credential.test.as_ref().filter(|it| it.verdict() != Verdict::Valid) {
        context.output.note(&format!("warning: it was tried out: {}", meaning(test.verdict())));
    }
    credential
}

fn warnings(context: &Context, credential: &Credential) {
    for warning in &credential.warnings {
        context.output.note(&format!("warning: {warning}"));
    }
}

async fn test(
    context: &Context,
    broker: &Broker,
    credential: &CredentialArg,
) -> Result<(), Failure> {
    let tested = broker.test_credential(&credential.0).await?;
    warnings(context, &tested);
    let verdict = tested.test.as_ref().map_or(Verdict::Unspecified, CredentialTest::verdict);
    context
        .output
        .show(&CredentialView::from(tested), |it| format!("{}: {}\n", it.name, meaning(verdict)))?;
    if verdict == Verdict::Valid { Ok(()) } else { Err(Failure::NotValid(verdict_word(verdict))) }
}

/// What a verdict means and what to do, for people.
fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "the provider accepts it",
        Verdict::Invalid => {
            "the provider does not accept it: it is wrong, revoked or expired; store a new secret"
        }
        Verdict::NoQuota => "accepted, but its account has no money or quota left: top it up",
        Verdict::NoModelAccess => {
            "accepted, but not for the model it was tried with: ask the provider for access"
        }
        Verdict::WrongKind => {
            "a key of another kind, which cannot be used for calls: store one for inference"
        }
        Verdict::RegionOrPermission => {
            "not accepted here: check its region, permissions and network rules, and that the service \
             is switched on"
        }
        Verdict::Unreachable => {
            "the provider could not be reached or has trouble, so nothing is known: test it later"
        }
        Verdict::Unspecified | Verdict::Unverifiable => {
            "there is no test for it, or what the provider answered shows nothing about it"
        }
    }
}

fn setting(text: &str) -> Result<Setting, String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE")?;
    Ok(Setting { name: name.to_owned(), value: value.to_owned() })
}

impl Put {
    async fn run(self, broker: &Broker) -> Result<Credential, Failure> {
        let name = self.credential.0;
        let secret = secret_input::read(&format!("The secret of {name} (not shown): "))?;
        let spec = Credential {
            provider: self.provider.to_string(),
            priority: self.priority,
            base_url: self.base_url.unwrap_or_default(),
            models: self.models,
            kind: self.kind.unwrap_or_default(),
            settings: self.settings,
            ..Credential::default()
        };
        let request_id = request_id()?;
        let (tenant, id) = (&name.tenant, &name.credential);
        Ok(if self.no_test {
            broker.create_credential(tenant, id, spec, &secret, &request_id).await?
        } else {
            broker.create_tested_credential(tenant, id, spec, &secret, &request_id).await?
        })
    }
}

impl Delete {
    async fn run(self, context: &Context, broker: &Broker) -> Result<(), Failure> {
        let name = self.named.credential.0.to_string();
        if !self.yes {
            confirm(&name)?;
        }
        let etag = self.named.etag.unwrap_or_default();
        let request = DeleteCredentialRequest { name: name.clone(), etag };
        broker.credentials().delete_credential(request).await?;
        context.output.show(&json!({ "deleted": name }), |_| format!("{name} is deleted"))
    }
}

/// Asks on a terminal. Without one there is nobody to ask, and nothing is deleted.
fn confirm(name: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::NotConfirmed);
    }
    let mut asked = io::stderr().lock();
    write!(asked, "Delete {name} and all its versions for good? Type `delete` to confirm: ")
        .and_then(|()| asked.flush())
        .map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Failure::Input)?;
    if answer.trim() == "delete" { Ok(()) } else { Err(Failure::NotConfirmed) }
}

/// Makes a call safe to repeat for those below us that do.
pub(crate) fn request_id() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Failure::NoRandomness)?;
    Ok(hex::encode(bytes))
}

async fn list_all(context: &Context, broker: &Broker, tenant: &TenantArg) -> Result<(), Failure> {
    let mut client = broker.credentials();
    let mut credentials: Vec<CredentialView> = Vec::new();
    let mut page_token = String::new();
    loop {
        let parent = tenant.0.resource();
        let request = ListCredentialsRequest { parent, page_size: 1000, page_token };
        let page = client.list_credentials(request).await?.into_inner();
        credentials.extend(page.credentials.into_iter().map(CredentialView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    context.output.show(&json!({ "credentials": credentials }), |_| {
        let row = |it: &CredentialView| {
            [
                it.name.clone(),
                it.provider.clone(),
                it.state.to_owned(),
                it.priority.to_string(),
                it.current_version.to_string(),
                ends_with(&it.last_four),
                it.tested(),
            ]
        };
        let header = ["NAME", "PROVIDER", "STATE", "PRIORITY", "VERSION", "SECRET", "TEST"];
        table(header, credentials.iter().map(row).collect())
    })
}

pub(crate) fn human(credential: &CredentialView) -> String {
    list([
        ("name", credential.name.clone()),
        ("provider", credential.provider.clone()),
        ("state", credential.state.to_owned()),
        ("priority", credential.priority.to_string()),
        ("version", credential.current_version.to_string()),
        ("secret", ends_with(&credential.last_four)),
        ("base URL", credential.base_url.clone()),
        ("models", credential.models.join(", ")),
        ("test", credential.tested()),
        ("created", credential.create_time.clone()),
        ("updated", credential.update_time.clone()),
        ("rotation", credential.rotation.as_ref().map(rotation::told).unwrap_or_default()),
        ("etag", credential.etag.clone()),
    ])
}

fn ends_with(last_four: &str) -> String {
    if last_four.is_empty() { String::new() } else { format!("…{last_four}") }
}
