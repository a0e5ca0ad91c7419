use std::{collections::HashMap, sync::Arc, time::Duration};

use audit::Kind;
use domain::{Secret, Timestamp, Uid};
use exchange::{Finding, Trial};
use futures_util::{StreamExt as _, stream};
use providers::Verdict;
use store::{Change, CredentialRow, Page, TestRow};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    caller::Caller,
    config::KeyTests,
    core::{Core, next_page},
    custody::Sealed as _,
    directory::{Held, Tenant},
    leadership,
    refused::Why,
    services::credentials::record,
    tokens::Described,
};

/// A credential whose test is due.
struct Due {
    tenant: Arc<Tenant>,
    at: usize,
    since: Timestamp,
    last: Option<TestRow>,
}

impl Core {
    /// Tries a secret out at its provider.
    pub(crate) async fn try_out(
        &self,
        row: &CredentialRow,
        secret: &Secret,
    ) -> Result<Finding, Why> {
        let Described { provider, kind, settings } = self.described(row)?;
        let base_url = row.base_url.as_deref();
        let trial = Trial { provider, kind, settings: &settings, base_url, secret };
        let slug = row.provider.to_string();
        let span = tracing::info_span!("credential_test", provider = slug);
        let found = self.tokens.minter.try_out(&trial).instrument(span).await;
        if let Some(obstacle) = found.obstacle {
            tracing::warn!(credential = %row.name(), "not tested: {}", obstacle.sentence());
        }
        let labels = [("provider", slug), ("verdict", found.verdict.as_str().to_owned())];
        metrics::counter!("strongroom_credential_tests_total", &labels).increment(1);
        Ok(found)
    }

    /// Keeps what a test of a version has shown, with its record. Without a caller it is the
    /// broker's own.
    pub(crate) async fn keep_test(
        &self,
        caller: Option<&Caller>,
        tenant: &Tenant,
        (row, version): (&CredentialRow, u64),
        verdict: Verdict,
    ) -> Result<TestRow, Why> {
        let mut test = TestRow {
            credential_uid: row.uid,
            version,
            verdict: verdict.as_str().to_owned(),
            tested_at: self.clock.now(),
            row_mac: [0; 36],
        };
        test.row_mac = test.mac_under(&*self.custody.kek(&tenant.keys).await?);
        let mut found = record(Kind::CredentialTested, row);
        found.credential_version = version;
        found.verdict = verdict_of(verdict.as_str()).into();
        let found = caller.map_or(found.clone(), |caller| caller.stamp(found));
        self.log.apply(&Change::KeepTest(test.clone()), found).await?;
        Ok(test)
    }

    /// Tests the credentials whose time has come, but no more of them at once than their number and the
    /// interval call for.
    pub(crate) async fn test_due(
        &self,
        settings: &KeyTests,
        leads: &watch::Receiver<bool>,
    ) -> Result<(), Why> {
        let (mut due, all) = self.due(settings).await?;
        due.sort_by_key(|due| due.since);
        let share = settings.look_every().div_duration_f64(settings.every);
        due.truncate(at_once(all, share));
        let tests = due.into_iter().map(|due| self.test(settings, due, leads));
        let mut tests = stream::iter(tests).buffer_unordered(AT_A_TIME);
        while let Some(done) = tests.next().await {
            if let Err(why) = done {
                tracing::warn!(?why, "a credential was not tested");
            }
        }
        Ok(())
    }

    /// Those that are due, and how many are tested at all.
    async fn due(&self, settings: &KeyTests) -> Result<(Vec<Due>, usize), Why> {
        let (now, mut due, mut all) = (self.clock.now(), Vec::new(), 0);
        let mut after = String::new();
        loop {
            let tenants = self.store.tenants(Page { after: &after, limit: PAGE }).await?;
            for row in tenants.iter().filter(|row| !row.suspended) {
                let Some((tenant, tests)) = self.tested(row.id.clone()).await else { continue };
                for (at, Held { row, .. }) in tenant.credentials.iter().enumerate() {
                    let last = tests.get(&row.uid).filter(|it| it.version == row.current_version);
                    let since = settings.due_at(row, last);
                    all += usize::from(row.enabled);
                    if row.enabled && since <= now {
                        let (tenant, last) = (Arc::clone(&tenant), last.cloned());
                        due.push(Due { tenant, at, since, last });
                    }
                }
            }
            after = next_page(&tenants, PAGE, |row| row.id.to_string());
            if after.is_empty() {
                return Ok((due, all));
            }
        }
    }

    /// A tenant whose rows or keys cannot be read leaves the others' credentials to be tested.
    async fn tested(&self, id: domain::TenantId) -> Option<(Arc<Tenant>, HashMap<Uid, TestRow>)> {
        let tenant = self.directory.tenant(&id).await;
        let tenant = tenant.inspect_err(|why| tracing::warn!(%id, ?why, "not tested")).ok()??;
        let tests = self.tests(&tenant).await;
        let tests = tests.inspect_err(|why| tracing::warn!(%id, ?why, "not tested")).ok()?;
        Some((tenant, tests))
    }

    async fn test(
        &self,
        settings: &KeyTests,
        due: Due,
        leads: &watch::Receiver<bool>,
    ) -> Result<(), Why> {
        if !*leads.borrow() {
            return Ok(());
        }
        let tenant = &due.tenant;
        let held = tenant.credentials.get(due.at).ok_or(Why::NoSuchCredential)?;
        let version = held.version(&self.custody, held.row.current_version).await?;
        let secret = self.custody.open_here(&tenant.keys, &held.row, version).await?;
        let verdict = self.try_out(&held.row, &secret).await?.verdict;
        let test = self.keep_test(None, tenant, (&held.row, version.row.version), verdict).await?;
        let confirmed = due.last.is_some_and(|last| {
            is_bad(&last) && test.tested_at >= last.tested_at + settings.confirm_after
        });
        if is_bad(&test) && confirmed {
            self.disable_refused(tenant, &held.row, verdict).await?;
        }
        Ok(())
    }

    /// Disables a credential that its provider has refused twice, with a pause between.
    async fn disable_refused(
        &self,
        tenant: &Tenant,
        row: &CredentialRow,
        verdict: Verdict,
    ) -> Result<(), Why> {
        let mut row = CredentialRow { enabled: false, ..row.clone() };
        let kek = self.custody.kek(&tenant.keys).await?;
        self.touch(&mut row, &kek);
        let mut disabled = record(Kind::CredentialDisabled, &row);
        disabled.verdict = verdict_of(verdict.as_str()).into();
        let entry = self.log.apply(&Change::UpdateCredential(row.clone(), None), disabled).await?;
        tracing::warn!(credential = %row.name(), verdict = verdict.as_str(), "disabled");
        metrics::counter!("strongroom_credentials_disabled_total").increment(1);
        self.directory.catch_up(entry.index + 1).await
    }
}

impl KeyTests {
    /// How often the broker looks for credentials whose test is due.
    fn look_every(&self) -> Duration {
        (self.every / 48).min(self.confirm_after / 2).max(Duration::from_secs(5))
    }

    /// When a credential is to be tested next: spread over the interval by its id, and soon when it is
    /// still to be confirmed that the provider refuses it.
    fn due_at(&self, row: &CredentialRow, last: Option<&TestRow>) -> Timestamp {
        let [first, ..] = *row.uid.as_bytes();
        let share = f64::from(first) / 256.0;
        match last {
            Some(last) if is_bad(last) => last.tested_at + self.confirm_after,
            Some(last) => last.tested_at + self.every.mul_f64(0.9 + 0.2 * share),
            None => row.updated_at + self.every.mul_f64(share),
        }
    }
}

/// Tests credentials as they become due, as long as this broker leads, until `stop`.
pub(crate) async fn test_regularly(
    core: Arc<Core>,
    settings: KeyTests,
    leads: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    if settings.every.is_zero() {
        return;
    }
    while leadership::next_turn(settings.look_every(), &leads, &stop).await {
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = core.test_due(&settings, &leads) => looked,
        };
        if let Err(why) = looked {
            tracing::warn!(?why, "credentials were not tested");
        }
    }
}

/// What a stored word says, in the contract's form.
pub(crate) fn verdict_of(word: &str) -> audit::Verdict {
    match Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == word) {
        Some(Verdict::Valid) => audit::Verdict::Valid,
        Some(Verdict::Invalid) => audit::Verdict::Invalid,
        Some(Verdict::NoQuota) => audit::Verdict::NoQuota,
        Some(Verdict::NoModelAccess) => audit::Verdict::NoModelAccess,
        Some(Verdict::WrongKind) => audit::Verdict::WrongKind,
        Some(Verdict::RegionOrPermission) => audit::Verdict::RegionOrPermission,
        Some(Verdict::Unreachable) => audit::Verdict::Unreachable,
        Some(Verdict::Unverifiable) => audit::Verdict::Unverifiable,
        None => audit::Verdict::Unspecified,
    }
}

fn is_bad(test: &TestRow) -> bool {
    let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == test.verdict);
    verdict.is_some_and(Verdict::is_confirmed_bad)
}

/// How many may be tested in one go: so many that all have had their turn within the interval.
fn at_once(all: usize, share: f64) -> usize {
    let all = f64::from(u32::try_from(all).unwrap_or(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and above 0"
    )]
    let fair = (all * share * 1.5).ceil() as usize;
    fair.max(AT_A_TIME)
}

const AT_A_TIME: usize = 4;
const PAGE: u32 = 1000;

#[cfg(test)]
mod tests;
