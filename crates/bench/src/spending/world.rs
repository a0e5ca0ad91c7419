use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use domain::{Clock as _, SystemClock, VirtualKey};
use hyper::StatusCode;
use strongroom_client::Broker;
use strongroom_proto::v1;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Args,
    gate::{Database, Gate},
};
use crate::{
    calling::{HttpClient, call, chat_url, client},
    deployment::{Deployment, SECRET},
    fleet::connect,
    process::{Server, persist},
    revocations::upstream::Upstream,
    table::note,
};

/// Brokers, proxies, and a provider that counts what is charged.
pub(crate) struct World {
    pub(crate) proxies: Vec<Server>,
    /// Where that is not a file.
    pub(crate) database: Option<Database>,
    deployment: Deployment,
    /// Before each broker, which has another address after a kill.
    gates: Vec<Gate>,
    admin: Broker,
    upstream: Upstream,
    client: HttpClient,
}

/// One that calls proxies with a key.
#[derive(Clone)]
pub(crate) struct Caller {
    /// Its key's name.
    pub(crate) name: String,
    client: HttpClient,
    key: String,
    body: &'static [u8],
}

impl World {
    pub(crate) async fn start(
        args: &Args,
        folder: &Path,
        url: Option<&str>,
    ) -> anyhow::Result<Self> {
        let database = match url {
            Some(url) => Some(Database::at(url).await?),
            None => None,
        };
        let url = database.as_ref().map(|database| &*database.url);
        let upstream = Upstream::start(TOOK).await?;
        let brokers = if url.is_some() { args.brokers.max(1) } else { 1 };
        let deployment = Deployment::start(folder, brokers, url, &upstream.address).await?;
        let mut gates = Vec::new();
        for broker in &deployment.fleet.brokers {
            gates.push(Gate::before(&broker.address).await?);
        }
        let mut proxies = Vec::new();
        for (_, gate) in (0..args.proxies).zip(gates.iter().cycle()) {
            proxies.push(deployment.fleet.proxy_of(&gate.address).await?);
        }
        let first = gates.first().context("there is no broker")?;
        let admin = connect(folder, "admin", &first.address)?;
        Ok(Self { proxies, database, deployment, gates, admin, upstream, client: client() })
    }

    pub(crate) fn store(&self) -> &'static str {
        if self.database.is_some() { "PostgreSQL" } else { "SQLite" }
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
        let made = persist(async || {
            Ok(self.admin.virtual_keys().create_virtual_key(request.clone()).await?.into_inner())
        });
        let (name, client) = (made.await?.name, self.client.clone());
        Ok(Caller { name, client, key: key.expose().to_owned(), body: WHOLE })
    }

    /// Makes a budget of a group; gives its name.
    pub(crate) async fn budget(
        &self,
        id: &str,
        group: &str,
        (unit, cap): (v1::Unit, u64),
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
            limits: vec![v1::Limit { unit: unit.into(), cap }],
            ..v1::Budget::default()
        };
        let request = v1::CreateBudgetRequest {
            parent: TENANT.to_owned(),
            budget_id: id.to_owned(),
            budget: Some(budget),
            request_id: String::new(),
        };
        let made = persist(async || {
            Ok(self.admin.budgets().create_budget(request.clone()).await?.into_inner())
        });
        Ok(made.await?.name)
    }

    /// Ends a budget: a tenant has only so many.
    pub(crate) async fn delete(&self, budget: String) -> anyhow::Result<()> {
        let request = v1::DeleteBudgetRequest { name: budget, etag: String::new() };
        let deleted = persist(async || {
            Ok(self.admin.budgets().delete_budget(request.clone()).await?.into_inner())
        });
        deleted.await.map(drop)
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
        self.upstream.uses(SECRET)
    }

    /// How many calls have arrived at the provider.
    pub(crate) fn counted(&self) -> u64 {
        self.arrivals().len().try_into().unwrap_or(u64::MAX)
    }

    /// Lets so many callers, in turn at each proxy, call until a limit has no room or this is over; gives
    /// how many calls were served.
    pub(crate) async fn call_until_refused(
        &self,
        caller: &Caller,
        callers: usize,
        over: Option<&Arc<AtomicBool>>,
    ) -> u64 {
        let mut calling = JoinSet::new();
        for (_, proxy) in (0..callers).zip(self.proxies.iter().cycle()) {
            let (caller, proxy, over) = (caller.clone(), proxy.address.clone(), over.cloned());
            calling.spawn(async move { caller.call_until_refused(&proxy, over.as_deref()).await });
        }
        calling.join_all().await.iter().sum()
    }

    pub(crate) fn brokers(&self) -> usize {
        self.gates.len()
    }

    /// Kills a proxy or, by the places behind them, a broker.
    pub(crate) fn kill(&self, place: usize) -> anyhow::Result<()> {
        match self.proxies.get(place) {
            Some(proxy) => proxy.kill(),
            None => self.deployment.fleet.kill(place - self.proxies.len()),
        }
    }

    /// Starts again what was killed, once it is gone.
    pub(crate) async fn restart(&mut self, place: usize) -> anyhow::Result<()> {
        let fleet = &mut self.deployment.fleet;
        if let Some(proxy) = self.proxies.get_mut(place) {
            proxy.gone().await?;
            let gate = self.gates.get(place % self.gates.len()).context("there is no gate")?;
            *proxy = fleet.proxy_of(&gate.address).await?;
            return Ok(());
        }
        let number = place - self.proxies.len();
        fleet.restart(number).await?;
        let (broker, gate) = (fleet.brokers.get(number), self.gates.get(number));
        let (broker, gate) = broker.zip(gate).context("there is no such broker")?;
        gate.open(&broker.address);
        Ok(())
    }

    /// Settles what nobody knows of a key's allowances: all of them together came to this.
    pub(crate) async fn reconcile(&self, key: &str, micro_usd: u64) -> anyhow::Result<()> {
        let request = v1::ListUnknownAllowancesRequest {
            parent: TENANT.to_owned(),
            page_size: 1000,
            page_token: String::new(),
        };
        let unknown = persist(async || {
            let mut budgets = self.admin.budgets();
            Ok(budgets.list_unknown_allowances(request.clone()).await?.into_inner())
        });
        let unknown = unknown.await?;
        ensure!(unknown.next_page_token.is_empty(), "there are more than 1000 to reconcile");
        let mut open = micro_usd;
        let unknown =
            unknown.allowances.into_iter().filter(|allowance| allowance.virtual_key == key);
        let found = unknown.map(|allowance| {
            let rest = allowance.rest.unwrap_or_default();
            let micro_usd = open.min(rest.micro_usd);
            open -= micro_usd;
            let spent = v1::Spent { micro_usd, ..v1::Spent::default() };
            v1::Found {
                allowance_id: allowance.allowance_id,
                spent: Some(spent),
                ..v1::Found::default()
            }
        });
        let found: Vec<_> = found.collect();
        ensure!(open == 0, "{open} of {micro_usd} micro-USD are of no allowance");
        if found.is_empty() {
            return Ok(());
        }
        let request = v1::ReconcileAllowancesRequest { parent: TENANT.to_owned(), found };
        let answer = persist(async || {
            Ok(self.admin.budgets().reconcile_allowances(request.clone()).await?.into_inner())
        });
        let refused = answer.await?.not_accepted;
        ensure!(refused.is_empty(), "not accepted: {refused:?}");
        Ok(())
    }
}

impl Caller {
    /// The same, reading streams.
    pub(crate) fn streaming(self) -> Self {
        Self { body: STREAMED, ..self }
    }

    /// Calls a proxy once.
    pub(crate) async fn call(&self, proxy: &str) -> anyhow::Result<StatusCode> {
        call(&self.client, &chat_url(proxy), &self.key, self.body).await
    }

    /// Calls a proxy once; whether it was served.
    pub(crate) async fn is_served(&self, proxy: &str) -> bool {
        self.call(proxy).await.is_ok_and(|status| status.is_success())
    }

    /// Calls until a limit has no room, the key has ended, or this is over; gives how many calls were served.
    pub(crate) async fn call_until_refused(&self, proxy: &str, over: Option<&AtomicBool>) -> u64 {
        let mut served = 0;
        while !over.is_some_and(|over| over.load(Ordering::Relaxed)) {
            match self.call(proxy).await {
                Ok(status) if status.is_success() => served += 1,
                Ok(status) if status.is_client_error() => break,
                // A busy machine is to make a figure worse, not to end the run.
                Ok(_) | Err(_) => sleep(PAUSE).await,
            }
        }
        served
    }
}

const TENANT: &str = "tenants/bench";
/// What each call takes, in tokens; at 0.15 and 0.6 micro-USD of one that comes to this.
const TOOK: (u64, u64) = (1000, 10);
pub(crate) const COST: u64 = 156;
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// Longer than a grant whose answer was lost is looked for.
const PATIENCE: Duration = Duration::from_mins(2);
const WHOLE: &[u8] =
    br#"{"messages":[{"role":"user","content":"Hello"}],"model":"gpt-4o-mini","max_tokens":10}"#;
const STREAMED: &[u8] = br#"{"messages":[{"role":"user","content":"Hello"}],"model":"gpt-4o-mini","max_tokens":10,"stream":true}"#;
