use clap::Subcommand;
use domain::SpiffeId;
use serde_json::json;
use strongroom_proto::v1::{
    BlockIdentityRequest, BlockedIdentity, ListBlockedIdentitiesRequest, RevokeSessionRequest,
    UnblockIdentityRequest,
};

use crate::{context::Context, failure::Failure, names::Hex, output::table, views};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Ends all that an identity holds, and refuses its calls until it is unblocked.
    Block {
        /// The SPIFFE ID, such as `spiffe://acme.internal/batch`.
        identity: SpiffeId,
    },
    /// Lets an identity call again.
    Unblock {
        /// The SPIFFE ID.
        identity: SpiffeId,
    },
    /// Lists the identities that are blocked.
    Blocked,
    /// Ends one session and every lease sealed to it.
    RevokeSession {
        /// SHA-256 of the session's public key, in hex, from a record.
        session_key: Hex,
    },
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut client = context.broker()?.identities();
        match self {
            Self::Block { identity } => {
                let request = BlockIdentityRequest { identity: identity.to_string() };
                let blocked = client.block_identity(request).await?.into_inner();
                context.output.show(&view(&blocked), |_| {
                    format!("{identity} is blocked, as entry {} tells", blocked.log_index)
                })
            }
            Self::Unblock { identity } => {
                let request = UnblockIdentityRequest { identity: identity.to_string() };
                let index = client.unblock_identity(request).await?.into_inner().log_index;
                let result = json!({ "unblocked": identity.to_string(), "log_index": index });
                context
                    .output
                    .show(&result, |_| format!("{identity} may call again, as entry {index} tells"))
            }
            Self::Blocked => {
                let answer = client.list_blocked_identities(ListBlockedIdentitiesRequest {});
                let blocked = answer.await?.into_inner().identities;
                let all: Vec<_> = blocked.iter().map(view).collect();
                context.output.show(&json!({ "identities": all }), |_| {
                    let row = |it: &BlockedIdentity| {
                        [it.identity.clone(), views::time(it.block_time), it.log_index.to_string()]
                    };
                    table(["IDENTITY", "BLOCKED", "ENTRY"], blocked.iter().map(row).collect())
                })
            }
            Self::RevokeSession { session_key } => {
                let shown = hex::encode(&session_key.0);
                let request = RevokeSessionRequest { session_key_sha256: session_key.0.into() };
                let index = client.revoke_session(request).await?.into_inner().log_index;
                let result = json!({ "revoked": shown, "log_index": index });
                context.output.show(&result, |_| format!("revoked, as entry {index} tells"))
            }
        }
    }
}

fn view(blocked: &BlockedIdentity) -> serde_json::Value {
    json!({
        "identity": blocked.identity,
        "log_index": blocked.log_index,
        "block_time": views::time(blocked.block_time),
    })
}
