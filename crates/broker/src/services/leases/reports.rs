use std::sync::Arc;

use audit::{Kind, Record};
use domain::{Failure, TenantId, VirtualKeyId};
use strongroom_proto::v1;

use super::ask::{failed, presented};
use crate::{
    caller::Caller,
    core::Core,
    directory::Tenant,
    refused::{Refused, Why},
    route::Failed,
    services::credentials,
};

impl Core {
    /// Takes note of calls that failed and that nothing stood in for. The keys of a report and what they
    /// may reach are checked as for a lease; a report that does not pass says nothing.
    pub(super) async fn hear_failures(
        &self,
        caller: &Caller,
        request: &v1::ReportFailuresRequest,
    ) -> Result<v1::ReportFailuresResponse, Refused> {
        self.session(caller, &request.session_id)?;
        if request.reports.len() > MOST_REPORTS {
            return Err(Why::InvalidField("reports has 100 entries at most".into()).into());
        }
        let now = self.clock.now();
        for report in &request.reports {
            let Some(attempt) = &report.attempt else {
                return Err(Why::InvalidField("a report needs an attempt".into()).into());
            };
            let failed = failed(attempt, now)?;
            match self.report_of(caller, report).await {
                Ok((tenant, key)) if failed.failure == Failure::SecretInAnswer => {
                    self.record_secret_in_answer(caller, &tenant, &key, &failed).await?;
                }
                Ok((tenant, _)) => self.note_failures(&tenant, &[failed]).await?,
                Err(Why::VirtualKeyRefused | Why::NotPermitted(_) | Why::NoSuchTenant) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(v1::ReportFailuresResponse {})
    }

    async fn report_of(
        &self,
        caller: &Caller,
        report: &v1::FailureReport,
    ) -> Result<(Arc<Tenant>, VirtualKeyId), Why> {
        let (id, digest) = presented(&report.virtual_key_id, &report.key_sha256)?;
        let key = self.check_virtual_key(&id, &digest).await?;
        Ok((self.tenant(caller, &key.row.tenant).await?, key.row.id.clone()))
    }

    /// Puts on record that an answer held the credential. It is lent on: whether its provider's address
    /// is to be trusted is for people to find out. A report about another tenant's credential is no
    /// report.
    async fn record_secret_in_answer(
        &self,
        caller: &Caller,
        tenant: &Arc<Tenant>,
        key: &VirtualKeyId,
        failed: &Failed,
    ) -> Result<(), Why> {
        let (name, platform) = (&failed.credential, TenantId::platform());
        let owner = if name.tenant == tenant.row.id {
            Some(Arc::clone(tenant))
        } else if name.tenant == platform {
            self.directory.tenant(&platform).await?
        } else {
            None
        };
        let held = owner.as_ref().and_then(|owner| owner.credential(&name.credential));
        let Some(held) = held else { return Ok(()) };
        let record = Record {
            tenant: tenant.row.id.to_string(),
            credential_version: failed.version,
            virtual_key: key.to_string(),
            ..credentials::record(Kind::SecretInAnswer, &held.row)
        };
        self.log.record(caller.stamp(record)).await?;
        Ok(())
    }
}

const MOST_REPORTS: usize = 100;
