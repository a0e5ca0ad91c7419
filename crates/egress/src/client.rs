use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use domain::Origin;
use http::{Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

use crate::{Connector, EgressError, Exit};

/// Sends single calls, such as key tests and token exchanges: each on a connection of its own, which is
/// closed with the answer.
#[derive(Clone, Debug)]
pub struct Client {
    exit: Arc<Exit>,
}

/// What one call may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// The only places to which it may go.
    pub origins: &'a [Origin],
    /// How long it may take, from looking up the host to the answer's last byte.
    pub within: Duration,
    /// How long the answer's body may be, in bytes.
    pub longest_answer: usize,
}

impl Client {
    /// Sends by way of this exit.
    pub fn new(exit: Arc<Exit>) -> Self {
        Self { exit }
    }

    /// Sends one request and receives the whole answer, whatever its status is unless that is a
    /// redirect. Nothing is sent twice.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        bounds: &Bounds<'_>,
    ) -> Result<Response<Bytes>, EgressError> {
        let uri = request.uri();
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(EgressError::NoHost);
        };
        let origin = Origin::of_url(&format!("{scheme}://{authority}"));
        let origin = origin.map_err(|_| EgressError::ForeignOrigin)?;
        if !bounds.origins.contains(&origin) {
            return Err(EgressError::ForeignOrigin);
        }
        let answer = timeout(bounds.within, self.exchange(origin, request, bounds.longest_answer));
        answer.await.unwrap_or(Err(EgressError::TooSlow))
    }

    async fn exchange(
        &self,
        origin: Origin,
        mut request: Request<Bytes>,
        longest: usize,
    ) -> Result<Response<Bytes>, EgressError> {
        // The connection is what says where a call goes.
        request.headers_mut().remove(HOST);
        let connector = Connector::new(Arc::clone(&self.exit), origin);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .http1_max_buf_size(LARGEST_HEAD)
            .http2_max_header_list_size(LARGEST_HEAD_2)
            .build::<_, Full<Bytes>>(connector);
        let answer = client.request(request.map(Full::new)).await.map_err(not_sent)?;
        if answer.status().is_redirection() {
            return Err(EgressError::Redirected);
        }
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, longest).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                EgressError::TooLong(longest)
            } else {
                EgressError::BrokenOff(error.into())
            }
        })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

/// The connector's own error, if one is the reason.
fn not_sent(error: legacy::Error) -> EgressError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(one) = cause {
        if let Some(own) = one.downcast_ref::<EgressError>() {
            return own.clone();
        }
        cause = one.source();
    }
    EgressError::BrokenOff(Arc::new(error))
}

const LARGEST_HEAD: usize = 64 << 10;
const LARGEST_HEAD_2: u32 = 64 << 10;

#[cfg(test)]
mod tests;
