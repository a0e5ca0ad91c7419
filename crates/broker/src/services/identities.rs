use std::sync::Arc;

use audit::{Kind, Record};
use domain::SpiffeId;
use strongroom_proto::v1::{self, identities_server::Identities};
use tonic::{Request, Response, Status};

use crate::{
    barred::Bar,
    caller::{Actor, Caller},
    core::{Core, accept, parse},
    people::Called,
    refused::{Refused, Why},
};

/// `strongroom.v1.Identities`.
#[derive(Clone, Debug)]
pub(crate) struct IdentityService(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl Identities for IdentityService {
    async fn block_identity(
        &self,
        request: Request<v1::BlockIdentityRequest>,
    ) -> Result<Response<v1::BlockedIdentity>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.block_identity(&caller, &request.identity)).await
    }

    async fn unblock_identity(
        &self,
        request: Request<v1::UnblockIdentityRequest>,
    ) -> Result<Response<v1::UnblockIdentityResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.unblock_identity(&caller, &request.identity)).await
    }

    async fn list_blocked_identities(
        &self,
        request: Request<v1::ListBlockedIdentitiesRequest>,
    ) -> Result<Response<v1::ListBlockedIdentitiesResponse>, Status> {
        let (caller, _) = accept(request)?;
        let work = async {
            self.0.access.permit_all(&caller)?;
            self.0.catch_up().await?;
            let blocked = self.0.directory.barred().blocked().into_iter();
            let mut identities = Vec::new();
            for (name, bar) in blocked {
                identities.push(message(self.0.people.tell(name).await, &bar));
            }
            Ok::<_, Refused>(v1::ListBlockedIdentitiesResponse { identities })
        };
        self.0.answer(&caller, work).await
    }

    async fn revoke_session(
        &self,
        request: Request<v1::RevokeSessionRequest>,
    ) -> Result<Response<v1::RevokeSessionResponse>, Status> {
        let (caller, request) = accept(request)?;
        let work = async {
            self.0.access.permit_all(&caller)?;
            let key: [u8; 32] =
                (&*request.session_key_sha256).try_into().map_err(|_| Why::NoSuchSession)?;
            let record = Record {
                kind: Kind::SessionRevoked.into(),
                session_key_sha256: key.to_vec().into(),
                ..Record::default()
            };
            let log_index = self.0.bar(&caller, record).await?;
            Ok::<_, Refused>(v1::RevokeSessionResponse { log_index })
        };
        self.0.answer(&caller, work).await
    }
}

impl Core {
    async fn block_identity(
        &self,
        caller: &Caller,
        identity: &str,
    ) -> Result<v1::BlockedIdentity, Refused> {
        self.access.permit_all(caller)?;
        let identity: SpiffeId = parse(identity)?;
        if identity == caller.identity {
            return Err(Why::InvalidField("an identity does not block itself".into()).into());
        }
        let known_as = self.people.call(&identity).await?;
        let actor = Actor::of(&identity, known_as);
        self.catch_up().await?;
        if !self.directory.barred().is_blocked(&actor) {
            let record = Record { kind: Kind::IdentityBlocked.into(), ..Record::default() };
            self.bar(caller, known_as.put_subject(&identity, record)).await?;
        }
        // Another caller may have lifted it at once: then it is as if that had come first.
        let blocked = self.directory.barred().blocked_by(&actor);
        let (_, bar) = blocked.ok_or(Why::EtagMismatch)?;
        Ok(message(identity.to_string(), &bar))
    }

    async fn unblock_identity(
        &self,
        caller: &Caller,
        identity: &str,
    ) -> Result<v1::UnblockIdentityResponse, Refused> {
        self.access.permit_all(caller)?;
        let identity: SpiffeId = parse(identity)?;
        let known_as = self.people.call(&identity).await?;
        let actor = Actor::of(&identity, known_as);
        self.catch_up().await?;
        let mut lifted = None;
        // Under the name that it was blocked by: that of a person, or of who was none yet.
        while let Some((name, _)) = self.directory.barred().blocked_by(&actor) {
            let known_as = if name == identity.as_str() { Called::ById } else { known_as };
            let record = Record { kind: Kind::IdentityUnblocked.into(), ..Record::default() };
            lifted = Some(self.bar(caller, known_as.put_subject(&identity, record)).await?);
        }
        let log_index = lifted.ok_or(Why::NoSuchIdentity)?;
        Ok(v1::UnblockIdentityResponse { log_index })
    }

    /// Appends a record that is all there is of a change, and applies it here before the answer.
    pub(crate) async fn bar(&self, caller: &Caller, record: Record) -> Result<u64, Why> {
        let entry = self.log.record_change(caller.stamp(record)).await?;
        self.directory.catch_up(entry.index + 1).await?;
        Ok(entry.index)
    }
}

fn message(identity: String, bar: &Bar) -> v1::BlockedIdentity {
    v1::BlockedIdentity { identity, log_index: bar.log_index, block_time: bar.time }
}
