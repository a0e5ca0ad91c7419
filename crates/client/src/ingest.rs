use std::{sync::Arc, time::Duration};

use domain::{CredentialId, CredentialName, Secret, TenantId};
use sealing::{BoxContext, BoxId};
use strongroom_proto::v1::{
    CreateCredentialRequest, Credential, GetCredentialRequest, RotateCredentialRequest,
    RotationPlan, SealedBox, StartRotationRequest, TestCredentialRequest,
};
use tonic::Request;

use crate::{Broker, ClientError, session::OpenSession};

impl Broker {
    /// Stores a credential; its secret is sealed before it leaves this function. `spec` says the
    /// provider, priority and endpoint. Safe to repeat with the same `request_id`.
    pub async fn create_credential(
        &self,
        parent: &TenantId,
        id: &CredentialId,
        spec: Credential,
        secret: &Secret,
        request_id: &str,
    ) -> Result<Credential, ClientError> {
        self.create(parent, id, spec, secret, (request_id, false)).await
    }

    /// The same, once the secret was tried out at its provider: one that is refused there is not stored.
    pub async fn create_tested_credential(
        &self,
        parent: &TenantId,
        id: &CredentialId,
        spec: Credential,
        secret: &Secret,
        request_id: &str,
    ) -> Result<Credential, ClientError> {
        self.create(parent, id, spec, secret, (request_id, true)).await
    }

    async fn create(
        &self,
        parent: &TenantId,
        id: &CredentialId,
        spec: Credential,
        secret: &Secret,
        (request_id, test): (&str, bool),
    ) -> Result<Credential, ClientError> {
        let name = CredentialName { tenant: parent.clone(), credential: id.clone() }.to_string();
        self.in_session(|session| {
            let (name, spec) = (&name, spec.clone());
            async move {
                let request = CreateCredentialRequest {
                    parent: parent.resource(),
                    credential_id: id.to_string(),
                    secret: Some(seal(&session, name, &spec.provider, secret)?),
                    credential: Some(spec),
                    request_id: request_id.to_owned(),
                    test,
                };
                let request = patient(request, test);
                Ok(self.credentials().create_credential(request).await?.into_inner())
            }
        })
        .await
    }

    /// Stores a new version of a credential's secret, sealed, and makes it the current one. With an
    /// `etag`, only if nothing changed since it was read. Safe to repeat with the same `request_id`.
    pub async fn rotate_credential(
        &self,
        name: &CredentialName,
        secret: &Secret,
        etag: Option<&str>,
        request_id: &str,
    ) -> Result<Credential, ClientError> {
        self.rotate(name, secret, etag, (request_id, false)).await
    }

    /// The same, once the secret was tried out at its provider: one that is refused there is not stored.
    pub async fn rotate_tested_credential(
        &self,
        name: &CredentialName,
        secret: &Secret,
        etag: Option<&str>,
        request_id: &str,
    ) -> Result<Credential, ClientError> {
        self.rotate(name, secret, etag, (request_id, true)).await
    }

    /// Finds out whether a credential works, and keeps what was found in its `test`.
    pub async fn test_credential(&self, name: &CredentialName) -> Result<Credential, ClientError> {
        let request = patient(TestCredentialRequest { name: name.to_string() }, true);
        Ok(self.credentials().test_credential(request).await?.into_inner())
    }

    async fn rotate(
        &self,
        name: &CredentialName,
        secret: &Secret,
        etag: Option<&str>,
        (request_id, test): (&str, bool),
    ) -> Result<Credential, ClientError> {
        let name = name.to_string();
        // The box is sealed for a provider too, and a credential's never changes.
        let request = GetCredentialRequest { name: name.clone() };
        let provider = self.credentials().get_credential(request).await?.into_inner().provider;
        self.in_session(|session| {
            let (name, provider) = (&name, &provider);
            async move {
                let request = RotateCredentialRequest {
                    name: name.clone(),
                    secret: Some(seal(&session, name, provider, secret)?),
                    etag: etag.unwrap_or_default().to_owned(),
                    request_id: request_id.to_owned(),
                    test,
                };
                let request = patient(request, test);
                Ok(self.credentials().rotate_credential(request).await?.into_inner())
            }
        })
        .await
    }
}

impl Broker {
    /// Stores a new version of a credential's secret, sealed, and begins to lend it step by step. With
    /// an `etag`, only if nothing changed since it was read. With `test`, one that the provider refuses
    /// is not stored. Safe to repeat with the same `operation_id`.
    pub async fn start_rotation(
        &self,
        name: &CredentialName,
        secret: &Secret,
        plan: RotationPlan,
        etag: Option<&str>,
        operation_id: &str,
        test: bool,
    ) -> Result<Credential, ClientError> {
        let name = name.to_string();
        let request = GetCredentialRequest { name: name.clone() };
        let provider = self.credentials().get_credential(request).await?.into_inner().provider;
        self.in_session(|session| {
            let (name, provider) = (&name, &provider);
            async move {
                let request = StartRotationRequest {
                    name: name.clone(),
                    secret: Some(seal(&session, name, provider, secret)?),
                    plan: Some(plan),
                    etag: etag.unwrap_or_default().to_owned(),
                    operation_id: operation_id.to_owned(),
                    test,
                };
                let request = patient(request, test);
                Ok(self.credentials().start_rotation(request).await?.into_inner())
            }
        })
        .await
    }
}

/// A test waits for a provider, so its call may take longer than others.
fn patient<T>(message: T, tests: bool) -> Request<T> {
    let mut request = Request::new(message);
    if tests {
        request.set_timeout(FOR_A_TEST);
    }
    request
}

const FOR_A_TEST: Duration = Duration::from_secs(25);

/// Each try gets a box of its own: one box ID seals once.
fn seal(
    session: &Arc<OpenSession>,
    credential: &str,
    provider: &str,
    secret: &Secret,
) -> Result<SealedBox, ClientError> {
    let box_id = BoxId::random().map_err(|_| ClientError::NoRandomness)?;
    let context = BoxContext { box_id, credential, provider, identity: &session.identity };
    let ciphertext = session.keys.seal_box(&context, secret).map_err(ClientError::Secret)?;
    Ok(SealedBox {
        session_id: session.keys.id().to_vec().into(),
        box_id: box_id.as_bytes().to_vec().into(),
        ciphertext: ciphertext.into(),
    })
}
