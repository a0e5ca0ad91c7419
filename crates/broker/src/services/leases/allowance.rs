use audit::{Kind, Record};
use domain::{Amounts, Settlement};
use store::{Report, Reported};
use strongroom_proto::v1;

use super::ask::presented;
use crate::{
    allowances::{Wish, allowance_id, holder},
    caller::Caller,
    core::Core,
    refused::{About, Refused, Why},
    usage::Noted,
};

/// The most settlements that one call may bring.
const MOST: usize = 1000;

impl Core {
    /// Reserves another allowance for a virtual key, without another lease.
    pub(crate) async fn draw_allowance(
        &self,
        caller: &Caller,
        request: &v1::DrawAllowanceRequest,
    ) -> Result<v1::Allowance, Refused> {
        let session = self.session(caller, &request.session_id)?;
        let (id, digest) = presented(&request.virtual_key_id, &request.key_sha256)?;
        let mut about = About { virtual_key: Some(id.clone()), ..About::default() };
        let refused = |why: Why, about: &About| Refused::about(why, about);
        let wish = request.allowance.as_ref().map(Wish::of).transpose();
        let wish = wish.map_err(|why| refused(why, &about))?;
        let nothing = || Why::InvalidField("allowance says what the call may come to".into());
        let wish = wish.ok_or_else(|| refused(nothing(), &about))?;
        let key = self.check_virtual_key(&id, &digest).await;
        let key = key.map_err(|why| refused(why, &about))?;
        let tenant = self.tenant(caller, &key.row.tenant).await;
        let tenant = tenant.map_err(|why| refused(why, &about))?;
        about.tenant = Some(key.row.tenant.clone());
        caller.concerns(about.clone());
        if tenant.row.suspended {
            return Err(refused(Why::TenantSuspended, &about));
        }
        let hold = self.hold(caller, &id, Some(&wish)).await.map_err(|why| refused(why, &about))?;
        if hold.is_limited() {
            let record = Record {
                kind: Kind::AllowanceDrawn.into(),
                session_key_sha256: session.key_sha256.to_vec().into(),
                tenant: key.row.tenant.to_string(),
                virtual_key: id.to_string(),
                allowance_id: wish.id().as_bytes().to_vec().into(),
                amounts: hold.granted(),
                ..Record::default()
            };
            self.log.record(caller.stamp(record)).await.map_err(|why| refused(why, &about))?;
        }
        hold.keep().ok_or_else(|| Why::Internal("an allowance without one".into()).into())
    }

    /// Takes in what became of allowances.
    pub(crate) async fn settle_usage(
        &self,
        caller: &Caller,
        request: &v1::SettleUsageRequest,
    ) -> Result<v1::SettleUsageResponse, Refused> {
        let session = self.session(caller, &request.session_id)?;
        if request.settlements.len() > MOST {
            return Err(Why::InvalidField("settlements are 1000 at most".into()).into());
        }
        let mut not_accepted = Vec::new();
        let mut reports = Vec::with_capacity(request.settlements.len());
        for told in &request.settlements {
            match report(caller, told) {
                Some(report) => reports.push(report),
                None => not_accepted.push(refusal(told, "INVALID_FIELD")),
            }
        }
        let told = reports.iter().map(|it| (it.id, it.settlement.sequence)).collect::<Vec<_>>();
        let reported = self.store.report(reports).await?;
        for ((id, sequence), reported) in told.into_iter().zip(reported) {
            let reason = match reported {
                Reported::Settled(_) => continue,
                Reported::NoSuchAllowance => "NO_SUCH_ALLOWANCE",
                Reported::Contradiction => "SETTLEMENT_CONTRADICTS",
            };
            let id = id.as_bytes().to_vec().into();
            not_accepted.push(v1::NotAccepted { id, sequence, reason: reason.to_owned() });
        }
        let noted = self.record_usage(caller, &request.usage).await?;
        for (told, noted) in request.usage.iter().zip(noted) {
            if let Noted::Refused(why) = noted {
                let reason = why.reason().as_str_name().to_owned();
                let id = told.usage_id.clone();
                not_accepted.push(v1::NotAccepted { id, sequence: 0, reason });
            }
        }
        let record = Record {
            kind: Kind::UsageReported.into(),
            session_key_sha256: session.key_sha256.to_vec().into(),
            count: u32::try_from(request.settlements.len()).unwrap_or(u32::MAX),
            ..Record::default()
        };
        self.log.record(caller.stamp(record)).await?;
        Ok(v1::SettleUsageResponse { not_accepted })
    }
}

/// Reads a settlement; nothing when it is none.
fn report(caller: &Caller, told: &v1::Settlement) -> Option<Report> {
    let read = |told: Option<&v1::Amounts>| told.map_or_else(Amounts::default, audit::amounts);
    let settlement = Settlement {
        sequence: Some(told.sequence).filter(|it| i64::try_from(*it).is_ok() && *it > 0)?,
        covered: read(told.covered.as_ref()),
        returned: read(told.returned.as_ref()),
        spent: audit::spending(&told.spent.unwrap_or_default())?,
        managed: audit::spending(&told.managed.unwrap_or_default())?,
    };
    let id = allowance_id(&told.allowance_id).ok()?;
    Some(Report { id, holder: holder(caller), settlement, at: None })
}

fn refusal(told: &v1::Settlement, reason: &str) -> v1::NotAccepted {
    v1::NotAccepted {
        id: told.allowance_id.clone(),
        sequence: told.sequence,
        reason: reason.to_owned(),
    }
}
