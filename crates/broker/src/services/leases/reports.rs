use strongroom_proto::v1;

use super::ask::{failed, presented};
use crate::{
    caller::Caller,
    core::Core,
    refused::{Refused, Why},
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
                Ok(tenant) => self.note_failures(&tenant, &[failed]).await?,
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
    ) -> Result<std::sync::Arc<crate::directory::Tenant>, Why> {
        let (id, digest) = presented(&report.virtual_key_id, &report.key_sha256)?;
        let key = self.check_virtual_key(&id, &digest).await?;
        self.tenant(caller, &key.row.tenant).await
    }
}

const MOST_REPORTS: usize = 100;
