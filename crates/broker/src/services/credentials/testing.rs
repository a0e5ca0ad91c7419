use std::collections::HashMap;

use audit::proto_time;
use domain::{CredentialName, Secret, Uid};
use exchange::{Finding, Leftover, Order};
use providers::{CredentialKind, KeyHint, UnusableSecret, Verdict};
use store::{CredentialRow, TestRow};
use strongroom_proto::v1;

use super::about;
use crate::{
    caller::Caller,
    core::{Core, parse},
    directory::Tenant,
    key_tests::verdict_of,
    refused::{Refused, Why},
    tokens::Described,
};

/// What is known of a secret that is to be stored.
pub(super) struct Looked {
    verdict: Option<Verdict>,
    warnings: Vec<String>,
}

impl Looked {
    /// Whether a test has shown that the provider accepts the secret.
    pub(super) fn is_valid(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Valid))
    }
}

impl Core {
    /// Refuses a secret that could never work: it would only fail later and elsewhere. What merely looks
    /// odd is a warning, because vendors change the form of their keys.
    pub(super) async fn look_at(
        &self,
        row: &CredentialRow,
        secret: &Secret,
        test: bool,
    ) -> Result<Looked, Why> {
        let Described { provider, kind, .. } = self.described(row)?;
        let form = provider.credential_form(kind);
        let form = form.map_err(|_| {
            Why::Corrupt(format!("the kind of {} is none that there is", row.name()))
        })?;
        let bytes = secret.expose();
        form.usable(bytes).map_err(|why| {
            if matches!(why, UnusableSecret::NotSendable) {
                Why::SecretMalformed
            } else {
                Why::SecretUnusable(why.to_string())
            }
        })?;
        let looks = warning(provider.name(), form.check(bytes));
        let found = if test { Some(self.try_out(row, secret).await?) } else { None };
        let verdict = found.map(|found| found.verdict);
        if let Some(verdict) = verdict.filter(|verdict| verdict.is_confirmed_bad()) {
            return Err(Why::SecretRefused(verdict));
        }
        // Of what is exchanged, something longer goes on calls.
        let is_short = bytes.len() < Secret::SHORTEST_SEARCHED;
        let is_lent = form.mint.is_none() && kind != CredentialKind::None;
        let short = (is_short && is_lent).then(|| SHORT.to_owned());
        let warnings = looks.into_iter().chain(short).chain(found.and_then(obstacle)).collect();
        Ok(Looked { verdict, warnings })
    }

    /// The answer to whoever stored a version of a secret.
    pub(super) async fn stored(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        (row, version): (&CredentialRow, u64),
        looked: Looked,
    ) -> Result<v1::Credential, Why> {
        let mut shown = self.shown(row);
        if let Some(verdict) = looked.verdict {
            // The secret is stored: what was found of it can be found again.
            match self.keep_test(Some(caller), tenant, (row, version), verdict).await {
                Ok(test) => shown = with(shown, Some(&test)),
                Err(why) => tracing::warn!(?why, "what a test has shown was not kept"),
            }
        }
        shown.warnings = looked.warnings;
        Ok(shown)
    }

    /// A credential that the caller may read, with all that is known of it.
    pub(super) async fn get(
        &self,
        caller: &Caller,
        name: &CredentialName,
    ) -> Result<v1::Credential, Why> {
        let (tenant, row) = self.found(caller, name).await?;
        self.with_test(&tenant, &row).await
    }

    pub(super) async fn with_test(
        &self,
        tenant: &Tenant,
        row: &CredentialRow,
    ) -> Result<v1::Credential, Why> {
        let mut shown = self.shown(row);
        if let Some(rotation) = &mut shown.rotation {
            rotation.waits = self.waits(row).await?;
        }
        Ok(with(shown, self.tests(tenant).await?.get(&row.uid)))
    }

    pub(crate) async fn test_credential(
        &self,
        caller: &Caller,
        request: &v1::TestCredentialRequest,
    ) -> Result<v1::Credential, Refused> {
        let name: CredentialName = parse(&request.name)?;
        let about = about(&name);
        caller.concerns(about.clone());
        let work = async {
            self.catch_up().await?;
            let (tenant, row) = self.found(caller, &name).await?;
            let permit = self.access.permit(caller, &name.tenant)?;
            let version = self.custody.version(&row, row.current_version).await?;
            let (secret, _) = self.custody.open(&permit, &tenant.keys, &row, &version).await?;
            let found = self.try_out(&row, &secret).await?;
            let tested = (&row, row.current_version);
            let test = self.keep_test(Some(caller), &tenant, tested, found.verdict).await?;
            let warnings = obstacle(found).into_iter().collect();
            Ok::<_, Why>(v1::Credential { warnings, ..with(self.shown(&row), Some(&test)) })
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    /// The keys that were made of a credential and can be deleted at its provider, with what it takes.
    pub(crate) async fn made_of(
        &self,
        tenant: &Tenant,
        row: &CredentialRow,
    ) -> Option<(Vec<Leftover>, Order)> {
        let made = self.tokens.exchange.forget(row.uid, |_| true);
        if made.is_empty() {
            return None;
        }
        let version = self.custody.version(row, row.current_version).await.ok()?;
        let order = self.order_of(tenant, row, &version).await.ok()??;
        Some((made, order))
    }

    /// What the last tests of a tenant's credentials have shown.
    pub(crate) async fn tests(&self, tenant: &Tenant) -> Result<HashMap<Uid, TestRow>, Why> {
        let rows = self.store.credential_tests(&tenant.row.id).await?;
        let mut tests = HashMap::with_capacity(rows.len());
        for row in rows {
            self.custody.verify(tenant.holder(), &row).await?;
            tests.insert(row.credential_uid, row);
        }
        Ok(tests)
    }
}

/// A credential with what its last test has shown.
pub(super) fn with(credential: v1::Credential, test: Option<&TestRow>) -> v1::Credential {
    let test = test.map(|test| v1::CredentialTest {
        verdict: verdict_of(&test.verdict).into(),
        test_time: Some(proto_time(test.tested_at)),
        version: test.version,
    });
    v1::Credential { test, ..credential }
}

fn obstacle(found: Finding) -> Option<String> {
    found.obstacle.map(|obstacle| obstacle.sentence().to_owned())
}

fn warning(provider: &str, hint: KeyHint<'_>) -> Option<String> {
    match hint {
        KeyHint::Plausible => None,
        KeyHint::Unusual { looks_like } => Some(format!(
            "the secret does not look as keys of {provider} do today ({looks_like}): if it does not work, see \
             whether it was copied whole"
        )),
        KeyHint::WrongKind { means } => Some(format!(
            "the secret looks wrong: {means}, which cannot work here: see which key it is"
        )),
    }
}

const SHORT: &str = "the secret is shorter than 12 bytes, so answers that repeat it are not found out \
                     and cut: let the endpoint make a longer one";
