//! The services of the scripted peer.

use std::{pin::Pin, sync::Arc, time::Duration};

use sealing::{BoxContext, BoxId, Session};
use strongroom_proto::v1::{self, acquire_lease_request, credentials_server, leases_server};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, async_trait};

use crate::peer::Peer;

type Answer<T> = Result<Response<T>, Status>;

#[async_trait]
impl leases_server::Leases for Peer {
    type WatchRevocationsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchRevocationsResponse, Status>> + Send>>;

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Answer<v1::OpenSessionResponse> {
        let mut script = self.script();
        script.sessions_opened += 1;
        let id = [u8::try_from(script.sessions_opened).unwrap(); 16];
        let public_key = request.into_inner().public_key;
        let (encapsulated, session) = Session::establish(&public_key, id).unwrap();
        script.sessions.insert(id.to_vec(), Arc::new(session));
        Ok(Response::new(v1::OpenSessionResponse {
            session_id: id.to_vec().into(),
            encapsulated_key: encapsulated.to_vec().into(),
            identity: self.identity.clone(),
            expire_time: None,
            verifier_key: script.verifier_key.clone(),
        }))
    }

    async fn acquire_lease(&self, request: Request<v1::AcquireLeaseRequest>) -> Answer<v1::Lease> {
        let has_deadline = request.metadata().contains_key("grpc-timeout");
        let request = request.into_inner();
        let session = self.session(&request.session_id)?;
        let refused = {
            let mut script = self.script();
            script.asked += 1;
            script.echoed.push(request.checkpoint.clone());
            script.deadlines.push(has_deadline);
            script.failed.clone_from(&request.failed);
            script.refusals.pop_front()
        };
        if let Some(status) = refused {
            return Err(status);
        }
        let Some(acquire_lease_request::Target::VirtualKey(target)) = request.target else {
            return Err(Status::invalid_argument("no virtual key"));
        };
        let id = domain::LeaseId::random().unwrap();
        let key = target.virtual_key_id;
        let lease = self.grant(&session, *id.as_bytes(), 0, target.model, &key);
        // Granted and recorded, but the answer may be held up.
        self.state.answers.acquire().await.unwrap().forget();
        Ok(Response::new(lease))
    }

    async fn renew_lease(&self, request: Request<v1::RenewLeaseRequest>) -> Answer<v1::Lease> {
        let request = request.into_inner();
        let session = self.session(&request.session_id)?;
        let (before, refused) = {
            let mut script = self.script();
            script.renewed += 1;
            script.echoed.push(request.checkpoint.clone());
            (script.granted.get(&*request.lease_id).cloned(), script.refusals.pop_front())
        };
        if let Some(status) = refused {
            return Err(status);
        }
        let before = before.unwrap();
        let id = (&*request.lease_id).try_into().unwrap();
        let key = before.virtual_key.rsplit('/').next().unwrap().to_owned();
        Ok(Response::new(self.grant(&session, id, before.renewals + 1, before.model, &key)))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Answer<v1::ReleaseLeaseResponse> {
        self.session(&request.into_inner().session_id)?;
        self.script().released += 1;
        Ok(Response::new(v1::ReleaseLeaseResponse {}))
    }

    async fn report_failures(
        &self,
        request: Request<v1::ReportFailuresRequest>,
    ) -> Answer<v1::ReportFailuresResponse> {
        let request = request.into_inner();
        self.session(&request.session_id)?;
        let mut script = self.script();
        if let Some(status) = script.deaf.pop_front() {
            return Err(status);
        }
        script.reported.extend(request.reports);
        Ok(Response::new(v1::ReportFailuresResponse {}))
    }

    async fn revoke_lease(
        &self,
        _: Request<v1::RevokeLeaseRequest>,
    ) -> Answer<v1::RevokeLeaseResponse> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn list_leases(
        &self,
        _: Request<v1::ListLeasesRequest>,
    ) -> Answer<v1::ListLeasesResponse> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn watch_revocations(
        &self,
        request: Request<v1::WatchRevocationsRequest>,
    ) -> Answer<Self::WatchRevocationsStream> {
        assert!(!request.metadata().contains_key("grpc-timeout"), "a stream has no deadline");
        let from = request.into_inner().from_index;
        let mut position = {
            let mut script = self.script();
            script.stream_starts.push(from);
            if let Some(status) = script.streams_refused.clone() {
                return Err(status);
            }
            from.unwrap_or(script.log)
        };
        let (sender, receiver) = mpsc::channel(8);
        let (peer, mut news) = (self.clone(), self.state.news.subscribe());
        self.state.streams.lock().unwrap().spawn(async move {
            loop {
                let message = peer.message(position);
                position = message.next_index;
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
                let _ = timeout(Duration::from_secs(2), news.changed()).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn explain_route(
        &self,
        _: Request<v1::ExplainRouteRequest>,
    ) -> Answer<v1::ExplainRouteResponse> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn draw_allowance(&self, _: Request<v1::DrawAllowanceRequest>) -> Answer<v1::Allowance> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn settle_usage(
        &self,
        _: Request<v1::SettleUsageRequest>,
    ) -> Answer<v1::SettleUsageResponse> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Answer<v1::ListModelsResponse> {
        Err(Status::unimplemented("not part of the script"))
    }
}

impl Peer {
    fn open(&self, name: &str, provider: &str, sealed: &v1::SealedBox) -> Result<(), Status> {
        let session = self.session(&sealed.session_id)?;
        let box_id = BoxId::from_bytes((&*sealed.box_id).try_into().unwrap());
        let identity = &self.identity;
        let context = BoxContext { box_id, credential: name, provider, identity };
        let secret = session
            .open_box(&context, &sealed.ciphertext)
            .map_err(|_| Status::invalid_argument("the box does not open"))?;
        self.script().stored.push((name.to_owned(), secret.expose().to_vec()));
        Ok(())
    }
}

#[async_trait]
impl credentials_server::Credentials for Peer {
    async fn create_credential(
        &self,
        request: Request<v1::CreateCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let request = request.into_inner();
        let mut credential = request.credential.unwrap();
        credential.name = format!("{}/credentials/{}", request.parent, request.credential_id);
        self.open(&credential.name, &credential.provider, &request.secret.unwrap())?;
        Ok(Response::new(credential))
    }

    async fn get_credential(
        &self,
        request: Request<v1::GetCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let name = request.into_inner().name;
        Ok(Response::new(v1::Credential { name, provider: "openai".into(), ..Default::default() }))
    }

    async fn list_credentials(
        &self,
        _: Request<v1::ListCredentialsRequest>,
    ) -> Answer<v1::ListCredentialsResponse> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn rotate_credential(
        &self,
        request: Request<v1::RotateCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let request = request.into_inner();
        self.open(&request.name, "openai", &request.secret.unwrap())?;
        Ok(Response::new(v1::Credential { name: request.name, ..Default::default() }))
    }

    async fn start_rotation(
        &self,
        request: Request<v1::StartRotationRequest>,
    ) -> Answer<v1::Credential> {
        let request = request.into_inner();
        self.open(&request.name, "openai", &request.secret.unwrap())?;
        let plan = request.plan;
        let rotation = Some(v1::Rotation { plan, ..Default::default() });
        Ok(Response::new(v1::Credential { name: request.name, rotation, ..Default::default() }))
    }

    async fn promote_rotation(
        &self,
        _: Request<v1::PromoteRotationRequest>,
    ) -> Answer<v1::Credential> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn cancel_rotation(
        &self,
        _: Request<v1::CancelRotationRequest>,
    ) -> Answer<v1::Credential> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn test_credential(
        &self,
        _: Request<v1::TestCredentialRequest>,
    ) -> Answer<v1::Credential> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn disable_credential(
        &self,
        _: Request<v1::DisableCredentialRequest>,
    ) -> Answer<v1::Credential> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn enable_credential(
        &self,
        _: Request<v1::EnableCredentialRequest>,
    ) -> Answer<v1::Credential> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn delete_credential(
        &self,
        _: Request<v1::DeleteCredentialRequest>,
    ) -> Answer<v1::DeleteCredentialResponse> {
        Err(Status::unimplemented("not part of the script"))
    }

    async fn shred_credential(
        &self,
        _: Request<v1::ShredCredentialRequest>,
    ) -> Answer<v1::Erasure> {
        Err(Status::unimplemented("not part of the script"))
    }
}
