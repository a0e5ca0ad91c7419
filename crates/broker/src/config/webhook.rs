use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use audit::Kind;
use domain::TenantId;
use serde::Deserialize;
use sinks::{From, SinkName};
use url::Url;

/// A receiver of some records as they happen, such as alerts of budgets, by signed HTTPS calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Under this name it is remembered how far it has come: another name begins anew.
    pub name: SinkName,
    /// Where a webhook of a new name begins.
    #[serde(default = "now")]
    pub from: From,
    /// Where to: `https://`. What `[egress]` forbids is not called.
    pub url: Url,
    /// Files with the secrets that calls are signed with, one a line; two in all while receivers change from
    /// one to the other. Refused if others than their owner can reach them. Read anew for each batch.
    pub secrets: Vec<PathBuf>,
    /// A call that fails is given up when its record is older than this, so that those behind it go on.
    #[serde(default = "three_days", with = "humantime_serde")]
    pub give_up_after: Duration,
    /// What it is called for: kinds of records. A `*` at the end stands for any rest.
    #[serde(default = "budgets")]
    pub kinds: Vec<String>,
    /// Whose records; empty: everybody's, and those of no tenant.
    #[serde(default)]
    pub tenants: Vec<String>,
}

impl WebhookConfig {
    pub(super) fn resolve(&mut self, folder: &Path) {
        for path in &mut self.secrets {
            *path = folder.join(&*path);
        }
    }

    /// Says what is wrong with it.
    pub(super) fn check(&self, plain_http: bool) -> Result<(), String> {
        let scheme = self.url.scheme();
        if scheme != "https" && !(plain_http && scheme == "http") {
            return Err(format!("`{scheme}`: a webhook is called with https"));
        }
        if !self.url.username().is_empty() || self.url.password().is_some() {
            return Err(
                "a URL with a name or password in it would be a secret: sign instead".into()
            );
        }
        if !(1..=2).contains(&self.secrets.len()) {
            return Err("`secrets` are one file, or two during a change".into());
        }
        if self.give_up_after < SOONEST {
            return Err("`give_up_after` is 1m or more".into());
        }
        if self.kinds.is_empty() {
            return Err("`kinds` names what to call for, such as BUDGET_*".into());
        }
        if let Some(unknown) = self.kinds.iter().find(|pattern| !any_kind_is(pattern)) {
            return Err(format!("`{unknown}` is no kind of record: docs/log-format.md has them"));
        }
        for tenant in &self.tenants {
            tenant.parse::<TenantId>().map_err(|error| format!("`{tenant}`: {error}"))?;
        }
        Ok(())
    }

    /// Whether it is called for records of this kind and tenant.
    pub(crate) fn wants(&self, kind: Kind, tenant: &str) -> bool {
        self.kinds.iter().any(|pattern| is_of(kind, pattern))
            && (self.tenants.is_empty() || self.tenants.iter().any(|own| own == tenant))
    }
}

fn is_of(kind: Kind, pattern: &str) -> bool {
    let name = kind.as_str_name();
    pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start))
}

fn any_kind_is(pattern: &str) -> bool {
    // More than there are: numbers of kinds are small.
    let mut kinds = (1..1000).filter_map(|number| Kind::try_from(number).ok());
    kinds.any(|kind| is_of(kind, pattern))
}

/// A receiver that restarts is to miss nothing.
const SOONEST: Duration = Duration::from_mins(1);

fn three_days() -> Duration {
    Duration::from_hours(72)
}

fn now() -> From {
    From::Now
}

fn budgets() -> Vec<String> {
    vec!["BUDGET_*".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &str) -> Result<WebhookConfig, toml::de::Error> {
        toml::from_str(&format!("name = 'alerts'\n{rest}"))
    }

    #[track_caller]
    fn check(rest: &str, wrong: &str) {
        let checked = config(rest).map_err(|error| error.to_string());
        let checked = checked.and_then(|config| config.check(false));
        let said = checked.err().unwrap_or_default();
        assert!(said.contains(wrong) && said.is_empty() == wrong.is_empty(), "{rest}: {said}");
    }

    #[test]
    fn what_cannot_be_called_is_refused_at_the_start() {
        let good = "url = 'https://a.b/hook'\nsecrets = ['s']\n";
        check(good, "");
        check(&format!("{good}kinds = ['BUDGET_ALERT', 'ALLOWANCE_*']\ntenants = ['acme']"), "");
        check("url = 'http://a.b/hook'\nsecrets = ['s']", "https");
        check("url = 'https://me:x@a.b/'\nsecrets = ['s']", "secret");
        check("url = 'https://a.b'\nsecrets = []", "one file");
        check("url = 'https://a.b'\nsecrets = ['1', '2', '3']", "two");
        check(&format!("{good}kinds = ['BUDGET_ALARM']"), "no kind");
        check(&format!("{good}give_up_after = '1m'"), "");
        check(&format!("{good}give_up_after = '59s'"), "1m or more");
        check(&format!("{good}kinds = []"), "BUDGET_*");
        check(&format!("{good}tenants = ['Acme!']"), "Acme!");
        check(&format!("{good}secret = 'x'"), "unknown field");
    }

    #[test]
    fn it_is_called_for_what_it_names_and_nothing_else() {
        let all = config("url = 'https://a.b'\nsecrets = ['s']").unwrap();
        assert!(all.wants(Kind::BudgetAlert, "acme") && all.wants(Kind::BudgetWouldRefuse, ""));
        assert!(!all.wants(Kind::LeaseGranted, "acme"));
        let rest =
            "url = 'https://a.b'\nsecrets = ['s']\ntenants = ['acme']\nkinds = ['BUDGET_ALERT']";
        let one = config(rest).unwrap();
        assert!(one.wants(Kind::BudgetAlert, "acme"));
        assert!(!one.wants(Kind::BudgetAlert, "acme-2") && !one.wants(Kind::BudgetUpdated, "acme"));
    }
}
