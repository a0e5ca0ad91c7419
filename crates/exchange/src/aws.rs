use std::fmt;

use async_trait::async_trait;
use domain::{Secret, Timestamp};
use http::{HeaderName, HeaderValue};

use crate::{ExchangeError, Minter, Order, Token, token::Asked};

mod bedrock;
mod sign;
mod sts;

pub(crate) use sts::blames_the_clock;

/// Who signs a request to AWS.
#[derive(Debug)]
pub struct AwsKeys {
    /// The access key's id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Secret,
    /// The token that belongs to keys which end by themselves.
    pub session_token: Option<Secret>,
}

/// The broker's own identity at AWS.
#[async_trait]
pub trait AwsIdentity: fmt::Debug + Send + Sync {
    /// Keys that can sign now; `None` when none can be had at the moment.
    async fn keys(&self) -> Option<AwsKeys>;
}

/// The headers that prove to AWS who sends this to a place: an address, a region and a service.
pub(crate) fn signature(
    keys: &AwsKeys,
    (url, region, service): (&str, &str, &str),
    content_type: &str,
    body: &[u8],
    at: Timestamp,
) -> Result<Vec<(HeaderName, HeaderValue)>, ExchangeError> {
    let headers = [("content-type", content_type)];
    let headers = if content_type.is_empty() { &[][..] } else { &headers };
    let request = sign::Signable { url, headers, body, region, service, at, presigned_for: None };
    sign::signed_headers(&request, keys)
}

/// Takes a customer's role as the broker, with the stored external id, and makes a short-term key of
/// Bedrock of it.
pub(crate) async fn of_role(minter: &Minter, order: &Order) -> Result<Token, ExchangeError> {
    let own = minter.aws()?.keys().await.ok_or(ExchangeError::NoIdentity)?;
    let role = sts::Role {
        arn: order.setting("role_arn")?,
        external_id: Some(order.text()?),
        signs: sts::Signs::Broker,
    };
    let asked = Asked::now(minter.clock());
    let (keys, lifetime) = sts::assume(minter, order, &own, &role, order.url()?).await?;
    bedrock::key(&keys, order.setting("region")?, asked, lifetime)
}

/// A short-term key of Bedrock, computed here of a user's access key; of a role that the user may take,
/// if the credential names one.
pub(crate) async fn of_access_key(minter: &Minter, order: &Order) -> Result<Token, ExchangeError> {
    let region = order.setting("region")?;
    let own = AwsKeys {
        access_key_id: order.setting("access_key_id")?.to_owned(),
        secret_access_key: Secret::new(order.text()?.as_bytes().to_vec()),
        session_token: None,
    };
    let asked = Asked::now(minter.clock());
    let (Some(arn), Some(url)) = (order.settings.get("role_arn"), &order.minting.url) else {
        return bedrock::key(&own, region, asked, order.lifetime());
    };
    let role = sts::Role { arn, external_id: None, signs: sts::Signs::Customer };
    let (keys, lifetime) = sts::assume(minter, order, &own, &role, url).await?;
    bedrock::key(&keys, region, asked, lifetime)
}
