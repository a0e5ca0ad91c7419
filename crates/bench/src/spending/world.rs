use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use domain::{Clock as _, SystemClock, VirtualKey};
use hyper::StatusCode;
use strongroom_client::Broker;
use strongroom_proto::v1;
use tokio::time::sleep;

use super::{Args, gate::Gate};
use crate::{
    calling::{HttpClient, call, chat_url, client},
    deployment::Deployment,
    process::Server,
    revocations::upstream::Upstream,
    table::note,
};

/// Brokers, proxies, and a provider that counts what is charged.
pub(crate) struct World {
    pub(crate) deployment: Deployment,
    pub(crate) proxies: Vec<Server>,
    /// Between brokers and the database, where that is not a file.
    pub(crate) gate: Option<Gate>,
    admin: Broker,
    upstream: Upstream,
    client: HttpClient,
}

/// One that calls proxies with a key.
#[derive(Clone)]
pub(crate) struct Caller {
    client: HttpClient,
    key: String,
}

impl World {
    pub(crate) async fn start(
        args: &Args,
        folder: &Path,
        url: Option<&str>,
    ) -> anyhow::Result<Self> {
        let gate = match url {
            Some(url) => Some(Gate::before(url).await?),
            None => None,
        };
        let url = gate.as_ref().map(|gate| &*gate.url);
        let upstream = Upstream::start(TOOK).await?;
        let brokers = if url.is_some() { args.brokers.max(1) } else { 1 };
        let deployment = Deployment::start(folder, brokers, url, &upstream.address).await?;
        let mut proxies = Vec::new();
        for number in 0..args.proxies {
            proxies.push(deployment.fleet.proxy(number % brokers).await?);
        }
        let admin = deployment.fleet.connect(0, "admin")?;
        Ok(Self { deployment, proxies, gate, admin, upstream, client: client() })
    }

    pub(crate) fn store(&self) -> &'static str {
        if self.gate.is_some() { "PostgreSQL" } else { "SQLite" }
    }

    /// Says how far it is.
    pub(crate) fn note(&self, text: &str) {
        note(&format!("{}: {text}", self.store()));
    }

    /// Makes a virtual key of a group, and gives one that calls with it.
    pub(crate) async fn caller(
        &self,
        group: &str,
        lasts: Option<Duration>,
    ) -> anyhow::Result<Caller> {
        let key = VirtualKey::generate()?;
        let expire_time = lasts.map(|lasts| audit::proto_time(SystemClock.now() + lasts));
        let terms =
            v1::VirtualKey { group: group.to_owned(), expire_time, ..v1::VirtualKey::default() };
        let request = v1::CreateVirtualKeyRequest {
            parent: TENANT.to_owned(),
            virtual_key_id: key.id().to_string(),
            virtual_key: Some(terms),
            key_sha256: key.digest().as_bytes().to_vec().into(),
        };
        self.admin.virtual_keys().create_virtual_key(request).await?;
        Ok(Caller { client: self.client.clone(), key: key.expose().to_owned() })
    }

    /// Makes a budget of a group, in micro-USD; gives its name.
    pub(crate) async fn budget(
        &self,
        group: &str,
        cap: u64,
        rolling: Option<Duration>,
    ) -> anyhow::Result<String> {
        let length = match rolling {
            Some(_) => v1::period::Length::Rolling,
            None => v1::period::Length::Total,
        };
        let rolling = rolling.and_then(|length| length.try_into().ok());
        let budget = v1::Budget {
            group: group.to_owned(),
            period: Some(v1::Period { length: length.into(), rolling, ..v1::Period::default() }),
            limits: vec![v1::Limit { unit: v1::Unit::MicroUsd.into(), cap }],
            ..v1::Budget::default()
        };
        let request = v1::CreateBudgetRequest {
            parent: TENANT.to_owned(),
            budget_id: group.to_owned(),
            budget: Some(budget),
            request_id: String::new(),
        };
        Ok(self.admin.budgets().create_budget(request).await?.into_inner().name)
    }

    /// How a budget stands once nothing is reserved of it.
    pub(crate) async fn at_rest(&self, budget: &str) -> anyhow::Result<v1::Account> {
        let began = SystemClock.elapsed();
        loop {
            let request = v1::GetBudgetRequest { name: budget.to_owned() };
            // A broker whose database was away may need a moment.
            if let Ok(answer) = self.admin.budgets().get_budget(request).await {
                let account = answer.into_inner().accounts.into_iter().next();
                let account = account.context("the budget has no account")?;
                if account.reserved == 0 {
                    return Ok(account);
                }
            }
            if SystemClock.elapsed().saturating_sub(began) > PATIENCE {
                bail!("something is reserved of {budget} after {PATIENCE:?}");
            }
            sleep(PAUSE).await;
        }
    }

    /// When calls arrived at the provider, in their order.
    pub(crate) fn arrivals(&self) -> Vec<Duration> {
        self.upstream.uses(crate::deployment::SECRET)
    }

    /// What the provider charges for all calls so far.
    pub(crate) fn charged(&self) -> anyhow::Result<u64> {
        Ok(u64::try_from(self.arrivals().len())? * COST)
    }
}

impl Caller {
    /// Calls a proxy once.
    pub(crate) async fn call(&self, proxy: &str) -> anyhow::Result<StatusCode> {
        call(&self.client, &chat_url(proxy), &self.key, BODY).await
    }

    /// Calls until a limit has no room; gives how many calls were served.
    pub(crate) async fn call_until_refused(&self, proxy: &str) -> u64 {
        let mut served = 0;
        loop {
            match self.call(proxy).await {
                Ok(status) if status.is_success() => served += 1,
                Ok(StatusCode::PAYMENT_REQUIRED | StatusCode::TOO_MANY_REQUESTS) => return served,
                // A busy machine is to make a figure worse, not to end the run.
                Ok(_) | Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

const TENANT: &str = "tenants/bench";
/// What each call takes, in tokens; at 0.15 and 0.6 micro-USD of one that comes to this.
const TOOK: (u64, u64) = (1000, 10);
pub(crate) const COST: u64 = 156;
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// Longer than a grant whose answer was lost is looked for.
const PATIENCE: Duration = Duration::from_mins(2);
const BODY: &[u8] =
    br#"{"messages":[{"role":"user","content":"Hello"}],"model":"gpt-4o-mini","max_tokens":10}"#;
