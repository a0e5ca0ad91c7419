use std::sync::Arc;

use audit::{Kind, Record};
use domain::SpiffeId;
use store::Appended;
use strongroom_proto::v1::{self, identities_server::Identities};
use tonic::{Request, Response, Status};

use crate::{
    barred::Bar,
    caller::Caller,
    core::{Core, accept, parse},
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
            let identities = blocked.map(|(identity, bar)| message(identity, &bar)).collect();
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
        self.catch_up().await?;
        if self.directory.barred().blocked_by(identity.as_str()).is_none() {
            self.bar(caller, about(Kind::IdentityBlocked, &identity)).await?;
        }
        // Another caller may have lifted it at once: then it is as if that had come first.
        let bar = self.directory.barred().blocked_by(identity.as_str());
        let bar = bar.ok_or(Why::EtagMismatch)?;
        Ok(message(identity.to_string(), &bar))
    }

    async fn unblock_identity(
        &self,
        caller: &Caller,
        identity: &str,
    ) -> Result<v1::UnblockIdentityResponse, Refused> {
        self.access.permit_all(caller)?;
        let identity: SpiffeId = parse(identity)?;
        self.catch_up().await?;
        if !self.directory.barred().is_blocked(identity.as_str()) {
            return Err(Why::NoSuchIdentity.into());
        }
        let log_index = self.bar(caller, about(Kind::IdentityUnblocked, &identity)).await?;
        Ok(v1::UnblockIdentityResponse { log_index })
    }

    /// Appends a record that is all there is of a change, and applies it here before the answer.
    async fn bar(&self, caller: &Caller, record: Record) -> Result<u64, Why> {
        match self.log.append(caller.stamp(record), None).await? {
            Appended::Recorded(entry) => {
                self.directory.catch_up(entry.index + 1).await?;
                Ok(entry.index)
            }
            Appended::Stale { .. } => Err(Why::LogUnavailable),
        }
    }
}

fn about(kind: Kind, identity: &SpiffeId) -> Record {
    Record { kind: kind.into(), subject: identity.to_string(), ..Record::default() }
}

fn message(identity: String, bar: &Bar) -> v1::BlockedIdentity {
    v1::BlockedIdentity { identity, log_index: bar.log_index, block_time: bar.time }
}
