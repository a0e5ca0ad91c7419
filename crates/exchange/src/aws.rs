use std::fmt;

use async_trait::async_trait;
use domain::Secret;

use crate::{ExchangeError, Minter, Order, Token, token::Asked};

mod bedrock;
mod sign;
mod sts;

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
