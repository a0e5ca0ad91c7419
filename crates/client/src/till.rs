use std::{fmt, time::Duration};

use async_trait::async_trait;
use domain::{VirtualKeyDigest, VirtualKeyId};
use strongroom_proto::v1::{
    Allowance, AllowanceRequest, DrawAllowanceRequest, NotAccepted, SettleUsageRequest, Settlement,
    UsageRecord,
};
use tokio::time::timeout;

use crate::{Broker, ClientError, LeaseError, error::RETRY_AFTER};

/// Whose purse it is. Two are equal only if the whole virtual keys are.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PurseKey {
    /// The id inside the virtual key.
    pub virtual_key: VirtualKeyId,
    /// SHA-256 of the whole virtual key.
    pub digest: VirtualKeyDigest,
}

/// Who grants slices of budgets and takes what became of them: the broker, or a test's script.
#[async_trait]
pub trait Till: fmt::Debug + Send + Sync {
    /// Grants a slice. The same id again is the same slice.
    async fn draw(
        &self,
        key: &PurseKey,
        request: AllowanceRequest,
    ) -> Result<Allowance, LeaseError>;

    /// Takes settlements and records of calls, 1000 of each at the most. When it returns, they are
    /// durable, but for those that it names: these cannot be, now or ever.
    async fn settle(
        &self,
        settlements: &[Settlement],
        usage: &[UsageRecord],
    ) -> Result<Vec<NotAccepted>, LeaseError>;
}

#[async_trait]
impl Till for Broker {
    async fn draw(
        &self,
        key: &PurseKey,
        request: AllowanceRequest,
    ) -> Result<Allowance, LeaseError> {
        let asked = || {
            self.in_session(|session| {
                let request = DrawAllowanceRequest {
                    session_id: session.keys.id().to_vec().into(),
                    virtual_key_id: key.virtual_key.to_string(),
                    key_sha256: key.digest.as_bytes().to_vec().into(),
                    allowance: Some(request.clone()),
                };
                async move { Ok(self.leases().draw_allowance(request).await?.into_inner()) }
            })
        };
        // An answer that was lost on the way is asked for again, with the same id.
        match self.within(asked()).await {
            Err(LeaseError::Unavailable { .. }) => self.within(asked()).await,
            answer => answer,
        }
    }

    async fn settle(
        &self,
        settlements: &[Settlement],
        usage: &[UsageRecord],
    ) -> Result<Vec<NotAccepted>, LeaseError> {
        let asked = self.in_session(|session| {
            let request = SettleUsageRequest {
                session_id: session.keys.id().to_vec().into(),
                settlements: settlements.to_vec(),
                usage: usage.to_vec(),
            };
            async move { Ok(self.leases().settle_usage(request).await?.into_inner()) }
        });
        Ok(self.within(asked).await?.not_accepted)
    }
}

impl Broker {
    async fn within<T>(
        &self,
        asked: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, LeaseError> {
        // Room for opening a session and for the one repetition.
        let most: Duration = self.timeout().saturating_mul(4);
        match timeout(most, asked).await {
            Ok(answer) => answer.map_err(LeaseError::from),
            Err(_) => Err(LeaseError::Unavailable { retry_after: RETRY_AFTER }),
        }
    }
}
