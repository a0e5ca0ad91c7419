use clap::Subcommand;
use serde_json::json;
use strongroom_proto::v1::{ListLeasesRequest, RevokeLeaseRequest};

use crate::{
    context::Context,
    failure::Failure,
    names::{Hex, TenantArg},
    output::table,
    views::LeaseView,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists a tenant's leases that have not ended.
    List {
        /// The tenant, such as `acme`.
        tenant: TenantArg,
    },
    /// Ends a lease at once.
    Revoke {
        /// The lease's hash, in hex, from the list or a record.
        lease_hash: Hex,
    },
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::List { tenant } => list_all(context, &tenant).await,
            Self::Revoke { lease_hash } => revoke(context, lease_hash).await,
        }
    }
}

async fn revoke(context: &Context, lease_hash: Hex) -> Result<(), Failure> {
    let shown = hex::encode(&lease_hash.0);
    let request = RevokeLeaseRequest { lease_hash: lease_hash.0.into() };
    let answer = context.broker()?.leases().revoke_lease(request).await?.into_inner();
    let result = json!({ "revoked": shown, "log_index": answer.log_index });
    context.output.show(&result, |_| format!("revoked, as entry {} tells", answer.log_index))
}

async fn list_all(context: &Context, tenant: &TenantArg) -> Result<(), Failure> {
    let mut client = context.broker()?.leases();
    let mut leases: Vec<LeaseView> = Vec::new();
    let mut page_token = String::new();
    loop {
        let parent = tenant.0.resource();
        let request = ListLeasesRequest { parent, page_size: 1000, page_token };
        let page = client.list_leases(request).await?.into_inner();
        leases.extend(page.leases.into_iter().map(LeaseView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    context.output.show(&json!({ "leases": leases }), |_| {
        let row = |lease: &LeaseView| {
            [
                lease.lease_hash.clone(),
                format!("{}@{}", lease.credential, lease.credential_version),
                lease.holder.clone(),
                lease.virtual_key.clone(),
                lease.expire_time.clone(),
                lease.log_index.to_string(),
            ]
        };
        let header = ["LEASE", "CREDENTIAL", "HOLDER", "VIRTUAL KEY", "EXPIRES", "ENTRY"];
        table(header, leases.iter().map(row).collect())
    })
}
