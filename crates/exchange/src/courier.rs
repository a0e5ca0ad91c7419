use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use egress::{Bounds, Client, EgressError};
use http::{Request, Response};

/// Takes one request to a provider and brings the answer: the guarded way out, or a test's script.
#[async_trait]
pub trait Courier: fmt::Debug + Send + Sync {
    /// The whole answer, whatever its status. Nothing is sent to another origin than those named.
    async fn send(
        &self,
        request: Request<Bytes>,
        bounds: &Bounds<'_>,
    ) -> Result<Response<Bytes>, EgressError>;
}

#[async_trait]
impl Courier for Client {
    async fn send(
        &self,
        request: Request<Bytes>,
        bounds: &Bounds<'_>,
    ) -> Result<Response<Bytes>, EgressError> {
        Self::send(self, request, bounds).await
    }
}
