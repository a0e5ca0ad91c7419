mod follow;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use strongroom_proto::v1::{
    GetKmsStatusRequest, KmsStatus, RewrapKeysRequest, RotateKekRequest, TenantKek, key_work,
};

use self::follow::{Followed, Goal};
use crate::{
    context::Context,
    failure::Failure,
    names::TenantArg,
    output::{printable, table},
    views,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Shows the root keys, how many keys are under each, and what is being done to them.
    Status {
        /// One tenant's key, such as `acme`.
        tenant: Option<TenantArg>,
    },
    /// Makes a new version of a tenant's key and seals everything under it, while leases go on.
    Rotate(Rotate),
    /// Wraps every key under a root by the root's current key.
    Rewrap {
        /// A root of `[[kms_roots]]`; the deployment's own without this.
        #[arg(long)]
        root: Option<String>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Args, Debug)]
#[group(id = "whose", required = true, multiple = false)]
pub(crate) struct Whose {
    /// The tenant, such as `acme`.
    tenant: Option<TenantArg>,
    /// Every tenant, and the platform.
    #[arg(long)]
    all: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Rotate {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
pub(crate) struct How {
    /// Does not wait until it is done.
    #[arg(long)]
    detach: bool,
    /// Makes the command safe to repeat: the same id again changes nothing, and waits for the same.
    #[arg(long)]
    request_id: Option<String>,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut client = context.broker()?.kms();
        let (goal, detach, log_index) = match self {
            Self::Status { tenant } => {
                let tenant = tenant.map(|tenant| tenant.0.resource()).unwrap_or_default();
                let status = client.get_status(GetKmsStatusRequest { tenant }).await?.into_inner();
                return context.output.show(&view(&status), |_| human(&status));
            }
            Self::Rotate(Rotate { whose, how }) => {
                let tenant = whose.tenant.map(|tenant| tenant.0.resource()).unwrap_or_default();
                // None of our own making: what a second person has approved is the request to the byte.
                let request_id = how.request_id.unwrap_or_default();
                let request = RotateKekRequest { tenant: tenant.clone(), request_id };
                let answer = client.rotate_kek(request).await?.into_inner();
                let goal = if tenant.is_empty() { Goal::RotateAll } else { Goal::Rotate(tenant) };
                (goal, how.detach, answer.log_index)
            }
            Self::Rewrap { root, how } => {
                let root = root.unwrap_or_default();
                let request_id = how.request_id.unwrap_or_default();
                let request = RewrapKeysRequest { root: root.clone(), request_id };
                let answer = client.rewrap_keys(request).await?.into_inner();
                (Goal::Rewrap(root), how.detach, answer.log_index)
            }
        };
        // The first record is never one of these: a request that was made before has none of its own.
        let log_index = (log_index > 0).then_some(log_index);
        let begun = log_index.map_or_else(
            || "it was begun already, by the same request".to_owned(),
            |index| format!("begun, as entry {index} tells"),
        );
        if detach {
            let result = Followed { log_index, done: false, count: None };
            return context.output.show(&result, |_| begun);
        }
        context.output.note(&begun);
        follow::follow(context, &mut client, &goal, log_index).await
    }
}

fn view(status: &KmsStatus) -> Value {
    let roots = status.roots.iter().map(|root| {
        json!({
            "name": root.name, "current_key": root.current_key, "healthy": root.healthy,
            "keys": root.keys, "outdated_keys": root.outdated_keys,
        })
    });
    let work = status.work.iter().map(|work| {
        json!({
            "kind": kind(work.kind()), "root": work.root, "begin_time": views::time(work.begin_time),
            "done": work.done,
        })
    });
    json!({
        "roots": roots.collect::<Vec<_>>(),
        "tenants": status.tenants.iter().map(tenant).collect::<Vec<_>>(),
        "work": work.collect::<Vec<_>>(),
        "resealed": status.resealed,
        "rewrapped": status.rewrapped,
        "last_error": status.last_error,
    })
}

fn tenant(kek: &TenantKek) -> Value {
    let versions = kek.versions.iter().map(|version| {
        json!({
            "version": version.version, "create_time": views::time(version.create_time),
            "root_key": version.root_key, "references": version.references,
        })
    });
    json!({
        "tenant": kek.tenant, "kek_id": hex::encode(&kek.kek_id),
        "versions": versions.collect::<Vec<_>>(),
    })
}

fn kind(kind: key_work::Kind) -> &'static str {
    match kind {
        key_work::Kind::Unspecified => "",
        key_work::Kind::RotateAll => "rotate-all",
        key_work::Kind::Rewrap => "rewrap",
    }
}

fn human(status: &KmsStatus) -> String {
    let mut parts = Vec::new();
    if !status.roots.is_empty() {
        let row = |root: &strongroom_proto::v1::RootKey| {
            let name = if root.name.is_empty() { "(own)" } else { &root.name };
            let health = if root.healthy { "healthy" } else { "NOT AVAILABLE" };
            let (keys, outdated) = (root.keys.to_string(), root.outdated_keys.to_string());
            [name.to_owned(), root.current_key.clone(), health.to_owned(), keys, outdated]
        };
        let header = ["ROOT", "CURRENT KEY", "STATE", "KEYS", "OUTDATED"];
        parts.push(table(header, status.roots.iter().map(row).collect()));
    }
    let versions = status.tenants.iter().flat_map(|kek| {
        kek.versions.iter().map(|version| {
            [
                kek.tenant.clone(),
                version.version.to_string(),
                views::time(version.create_time),
                version.references.to_string(),
                version.root_key.clone(),
            ]
        })
    });
    let versions: Vec<_> = versions.collect();
    if !versions.is_empty() {
        parts.push(table(["TENANT", "VERSION", "MADE", "ROWS", "ROOT KEY"], versions));
    }
    let work = status.work.iter().map(|work| {
        let state = if work.done { "done" } else { "under way" };
        let begun = views::time(work.begin_time);
        [kind(work.kind()).to_owned(), work.root.clone(), begun, state.to_owned()]
    });
    let work: Vec<_> = work.collect();
    if !work.is_empty() {
        parts.push(table(["WORK", "ROOT", "BEGUN", "STATE"], work));
    }
    if !status.last_error.is_empty() {
        parts.push(format!("hindered: {}\n", printable(&status.last_error)));
    }
    parts.join("\n")
}
