use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use domain::{Clock, Origin};
use egress::{Bounds, EgressError};
use http::{
    HeaderName, HeaderValue, Request, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use metrics::{counter, histogram};
use providers::Mint;
use tokio::time::timeout;

use crate::{AwsIdentity, Courier, ExchangeError, Order, Token, aws, entra, google, keys};

/// Makes tokens, one at a time for each that is asked for: no memory, no sharing.
pub struct Minter {
    courier: Arc<dyn Courier>,
    clock: Arc<dyn Clock>,
    aws: Option<Arc<dyn AwsIdentity>>,
}

impl Minter {
    /// Asks by this courier. `aws` is who the broker itself is at AWS, for taking customers' roles.
    pub fn new(
        courier: Arc<dyn Courier>,
        clock: Arc<dyn Clock>,
        aws: Option<Arc<dyn AwsIdentity>>,
    ) -> Self {
        Self { courier, clock, aws }
    }

    /// Makes a token, within ten seconds or not at all.
    pub async fn mint(&self, order: &Order) -> Result<Token, ExchangeError> {
        let begun = self.clock.elapsed();
        let token = timeout(WITHIN, self.token(order)).await;
        let token = token.unwrap_or(Err(ExchangeError::Unreachable(EgressError::TooSlow)));
        let how = order.minting.how.as_str();
        let outcome = token.as_ref().map_or_else(ExchangeError::word, |_| "made");
        counter!("strongroom_token_exchanges_total", "how" => how, "outcome" => outcome)
            .increment(1);
        histogram!("strongroom_token_exchange_seconds", "how" => how)
            .record(self.clock.elapsed().saturating_sub(begun));
        token
    }

    async fn token(&self, order: &Order) -> Result<Token, ExchangeError> {
        match order.minting.how {
            Mint::AwsAssumeRole => aws::of_role(self, order).await,
            Mint::BedrockShortTermKey => aws::of_access_key(self, order).await,
            Mint::GoogleJwtGrant => google::token(self, order).await,
            Mint::EntraClientCredentials => entra::token(self, order).await,
            Mint::OpenRouterKey => keys::openrouter(self, order).await,
            Mint::OpenAiServiceAccountKey => keys::openai(self, order).await,
            Mint::XaiTeamKey => keys::xai(self, order).await,
            how @ (Mint::VercelKey | Mint::CloudflareToken | Mint::PerplexityKey) => {
                Err(ExchangeError::NotMade(how))
            }
        }
    }

    /// Deletes a key at its provider before its end. One that is not there any more is as good.
    pub async fn delete(&self, key_id: &str, order: &Order) -> Result<(), ExchangeError> {
        keys::delete(self, key_id, order).await
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn aws(&self) -> Result<&dyn AwsIdentity, ExchangeError> {
        self.aws.as_deref().ok_or(ExchangeError::NoIdentity)
    }

    pub(crate) async fn post_form(
        &self,
        url: &str,
        body: String,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Response<Bytes>, ExchangeError> {
        let mut request = Request::post(url)
            .header(CONTENT_TYPE, FORM)
            .body(Bytes::from(body))
            .map_err(|_| ExchangeError::NotText)?;
        request.headers_mut().extend(headers.iter().cloned());
        self.send(request).await
    }

    /// Sends to the request's own origin and nowhere else.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let origin = Origin::of_url(&request.uri().to_string());
        let origin = origin.map_err(|_| ExchangeError::Unreadable)?;
        self.call(request, origin).await.map_err(ExchangeError::Unreachable)
    }

    /// Sends to this origin and nowhere else.
    pub(crate) async fn call(
        &self,
        mut request: Request<Bytes>,
        origin: Origin,
    ) -> Result<Response<Bytes>, EgressError> {
        if !request.headers().contains_key(ACCEPT) {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(ACCEPT, json);
        }
        let origins = [origin];
        let bounds = Bounds { origins: &origins, within: WITHIN, longest_answer: LONGEST_ANSWER };
        self.courier.send(request, &bounds).await
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter").finish_non_exhaustive()
    }
}

pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
const WITHIN: Duration = Duration::from_secs(10);
const LONGEST_ANSWER: usize = 64 << 10;
