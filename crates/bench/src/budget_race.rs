use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use audit::{proto_amounts, proto_spent};
use domain::{
    Allowance, Amounts, Clock as _, Cost, Source, Spending, SystemClock, Ticket, Uid, Unit,
    VirtualKey, VirtualKeyDigest, VirtualKeyId,
};
use sealing::ClientKeys;
use strongroom_client::Broker;
use strongroom_proto::v1;
use tokio::{sync::Mutex, task::JoinSet};
use tonic::Code;

use crate::{deployment::Deployment, table::note};

/// Whether many callers that race for a budget ever spend more than it, or leave much of it.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A `PostgreSQL` database to race on as well; a schema is made in it.
    #[arg(long)]
    postgres: Option<String>,
    /// Brokers on `PostgreSQL`. `SQLite` has one.
    #[arg(long, default_value_t = 2)]
    brokers: usize,
    /// Holders of allowances, in turn at each broker.
    #[arg(long, default_value_t = 4)]
    holders: usize,
    /// Callers, in turn at each holder.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// The budget, in micro-USD.
    #[arg(long, default_value_t = 1000)]
    cap: u64,
    /// How often.
    #[arg(long, default_value_t = 20)]
    repeats: usize,
    #[arg(long)]
    json: bool,
}

/// One who draws allowances and lets callers spend them, as a proxy does.
struct Holder {
    broker: Broker,
    session: bytes::Bytes,
    key: VirtualKeyId,
    digest: VirtualKeyDigest,
    purse: Mutex<Vec<(Uid, Allowance)>>,
}

/// What came of all races on one database.
struct Outcome {
    store: &'static str,
    least: u64,
    most: u64,
    calls: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut outcomes = vec![race_all(&args, "SQLite", &folder.path().join("sqlite"), None).await?];
    if let Some(url) = &args.postgres {
        let path = folder.path().join("postgres");
        outcomes.push(race_all(&args, "PostgreSQL", &path, Some(url)).await?);
    }
    report(&args, &outcomes);
    Ok(())
}

async fn race_all(
    args: &Args,
    store: &'static str,
    folder: &Path,
    url: Option<&str>,
) -> anyhow::Result<Outcome> {
    let brokers = if url.is_some() { args.brokers } else { 1 };
    let deployment = Deployment::start(folder, brokers, url, "127.0.0.1:9").await?;
    let admin = deployment.fleet.connect(0, "admin")?;
    let mut outcome = Outcome { store, least: u64::MAX, most: 0, calls: 0 };
    for repeat in 0..args.repeats {
        let key = VirtualKey::generate()?;
        let name = allow(&admin, &key, args.cap, repeat).await?;
        let mut holders = Vec::new();
        for number in 0..args.holders {
            let broker = deployment.fleet.connect(number % brokers, "inference-proxy")?;
            holders.push(Arc::new(Holder::new(broker, &key).await?));
        }
        let (spent, calls) = race(args, &holders).await?;
        let request = v1::GetBudgetRequest { name };
        let budget = admin.budgets().get_budget(request).await?.into_inner();
        let known = budget.accounts.first().context("the budget has no account")?;
        ensure!(spent <= args.cap, "{spent} were spent of {}", args.cap);
        ensure!(spent * 100 >= args.cap * 99, "only {spent} of {} were usable", args.cap);
        ensure!(known.spent == spent, "{spent} were spent, and the broker says {}", known.spent);
        let held = known.reserved + known.unknown + known.overrun;
        ensure!(held == 0, "when all is settled, {held} are held");
        note(&format!("{store}: race {} of {}: {spent} spent", repeat + 1, args.repeats));
        outcome.least = outcome.least.min(spent);
        outcome.most = outcome.most.max(spent);
        outcome.calls += calls;
    }
    Ok(outcome)
}

/// Makes a virtual key and a budget of its own.
async fn allow(
    admin: &Broker,
    key: &VirtualKey,
    cap: u64,
    repeat: usize,
) -> anyhow::Result<String> {
    let parent = || "tenants/bench".to_owned();
    let request = v1::CreateVirtualKeyRequest {
        parent: parent(),
        virtual_key_id: key.id().to_string(),
        virtual_key: Some(v1::VirtualKey::default()),
        key_sha256: key.digest().as_bytes().to_vec().into(),
    };
    admin.virtual_keys().create_virtual_key(request).await?;
    let length = v1::period::Length::Total.into();
    let budget = v1::Budget {
        virtual_key: key.id().to_string(),
        period: Some(v1::Period { length, ..v1::Period::default() }),
        limits: vec![v1::Limit { unit: v1::Unit::MicroUsd.into(), cap }],
        ..v1::Budget::default()
    };
    let request = v1::CreateBudgetRequest {
        parent: parent(),
        budget_id: format!("race-{repeat}"),
        budget: Some(budget),
        request_id: String::new(),
    };
    Ok(admin.budgets().create_budget(request).await?.into_inner().name)
}

/// Lets all callers spend until they are refused; gives what they spent, and in how many calls.
async fn race(args: &Args, holders: &[Arc<Holder>]) -> anyhow::Result<(u64, u64)> {
    let (spent, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for (number, holder) in (0..args.clients).zip(holders.iter().cycle()) {
        let holder = Arc::clone(holder);
        let (spent, calls) = (Arc::clone(&spent), Arc::clone(&calls));
        clients.spawn(async move {
            let mut turn = u64::try_from(number)?;
            loop {
                // Some calls cost as much as they may, and some less.
                let (most, cost) = (1 + turn % 3, 1 + turn % 3 / 2);
                let Some((id, ticket)) = holder.begin(most).await? else { break };
                spent.fetch_add(cost, Ordering::Relaxed);
                calls.fetch_add(1, Ordering::Relaxed);
                holder.end(id, ticket, cost).await;
                turn += 1;
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    for holder in holders {
        holder.give_back().await?;
    }
    Ok((spent.load(Ordering::Relaxed), calls.load(Ordering::Relaxed)))
}

impl Holder {
    async fn new(broker: Broker, key: &VirtualKey) -> anyhow::Result<Self> {
        let public_key = ClientKeys::generate()?.public_key().to_vec().into();
        let request = v1::OpenSessionRequest { public_key };
        let session = broker.leases().open_session(request).await?.into_inner().session_id;
        let (key, digest) = (key.id().clone(), key.digest());
        Ok(Self { broker, session, key, digest, purse: Mutex::default() })
    }

    /// Begins a call; nothing when the budget refuses it for good.
    async fn begin(&self, most: u64) -> anyhow::Result<Option<(Uid, Ticket)>> {
        let need = Amounts::of_call(Cost::of(most, 1_000_000), 1, 1);
        let mut refused = 0;
        loop {
            let now = SystemClock.now();
            for (id, slice) in self.purse.lock().await.iter_mut() {
                if let Some(ticket) = slice.begin(&need, now) {
                    return Ok(Some((*id, ticket)));
                }
            }
            if !self.draw(&need).await? {
                // Others may have use for what is of none here, and the other way round.
                self.give_back().await?;
                refused += 1;
                if refused > 2 {
                    return Ok(None);
                }
            }
        }
    }

    async fn draw(&self, need: &Amounts) -> anyhow::Result<bool> {
        let id = Uid::random()?;
        let wanted = need.each(|_, need| need * 20);
        let request = v1::DrawAllowanceRequest {
            session_id: self.session.clone(),
            virtual_key_id: self.key.to_string(),
            key_sha256: self.digest.as_bytes().to_vec().into(),
            allowance: Some(v1::AllowanceRequest {
                allowance_id: id.as_bytes().to_vec().into(),
                need: Some(proto_amounts(need)),
                wanted: Some(proto_amounts(&wanted)),
            }),
        };
        let drawn = match self.broker.leases().draw_allowance(request).await {
            Ok(drawn) => drawn.into_inner(),
            Err(status) if is_spent(&status) => return Ok(false),
            Err(status) => return Err(status.into()),
        };
        let granted = audit::amounts(&drawn.granted.unwrap_or_default());
        let ends = SystemClock.now() + std::time::Duration::from_mins(2);
        let slice = Allowance::new(&granted, &[Unit::Money], ends);
        self.purse.lock().await.push((id, slice));
        Ok(true)
    }

    async fn end(&self, id: Uid, ticket: Ticket, cost: u64) {
        let cost = Cost::of(cost, 1_000_000);
        let spent = Spending { cost, requests: 1, input_tokens: 1, output_tokens: 1 };
        let mut purse = self.purse.lock().await;
        if let Some((_, slice)) = purse.iter_mut().find(|(own, _)| *own == id) {
            slice.end(ticket, &spent, Source::Byok);
        }
    }

    /// Gives back what no call holds, and says what was spent.
    async fn give_back(&self) -> anyhow::Result<()> {
        let mut settlements = Vec::new();
        for (id, slice) in self.purse.lock().await.iter_mut() {
            slice.give_back();
            settlements.extend(slice.report().map(|told| v1::Settlement {
                allowance_id: id.as_bytes().to_vec().into(),
                sequence: told.sequence,
                covered: Some(proto_amounts(&told.covered)),
                returned: Some(proto_amounts(&told.returned)),
                spent: Some(proto_spent(&told.spent)),
                managed: None,
            }));
        }
        if settlements.is_empty() {
            return Ok(());
        }
        let request =
            v1::SettleUsageRequest { session_id: self.session.clone(), settlements, usage: vec![] };
        let answer = self.broker.leases().settle_usage(request).await?.into_inner();
        ensure!(answer.not_accepted.is_empty(), "not accepted: {:?}", answer.not_accepted);
        Ok(())
    }
}

fn is_spent(status: &tonic::Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message().contains("budget")
}

#[expect(clippy::print_stdout, reason = "this is what the run is for")]
fn report(args: &Args, outcomes: &[Outcome]) {
    for Outcome { store, least, most, calls } in outcomes {
        let (cap, repeats) = (args.cap, args.repeats);
        if args.json {
            let outcome = serde_json::json!({
                "store": store, "repeats": repeats, "cap": cap, "least": least, "most": most,
                "calls": calls,
            });
            println!("{outcome}");
        } else {
            println!(
                "{store}: {repeats} races of {} callers for {cap}: {least} to {most} spent, in \
                 {calls} calls, and to the unit what the broker counted",
                args.clients
            );
        }
    }
}
