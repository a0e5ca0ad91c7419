use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use audit::{Kind, Record};
use domain::{RootName, Uid};
use envelope::{Kms as _, WrappedKey};
use sha2::{Digest as _, Sha256};
use store::{Change, KeyPurpose, KeyWork, Resealed, Stale, StoreError, TenantKey};
use tokio::{select, sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    core::Core,
    custody::{Holder, OwnRow as _},
    refused::Why,
};

/// Brings what is stored under the newest keys while leases are given: the one broker that leads does
/// it. What there is to do is in the rows and keys themselves, so whoever leads next goes on with it,
/// and two that do it at once do no harm: each write replaces only what its writer has read.
pub(crate) struct Rekeying {
    core: Arc<Core>,
    pace: Pace,
    /// How many rows of a tenant could not be sealed anew the last time: so many more are read, to come
    /// past them.
    stuck: HashMap<Uid, u32>,
    /// What failed and is not tried again before this time, so that it holds nothing else up.
    waits: HashMap<Part, Duration>,
}

/// What fails by itself.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Part {
    Everything,
    /// Something that was asked for, by its name.
    Asked(String),
    /// What a tenant has.
    Of(Uid),
}

/// How fast it goes. It has all the time there is, and leases go first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Rows in one transaction.
    pub(crate) rows: u32,
    /// After each transaction, and after each call of a KMS.
    pub(crate) between: Duration,
    /// When there is nothing to do.
    pub(crate) idle: Duration,
    /// How long what has failed waits for its next try.
    pub(crate) after_failure: Duration,
    /// How old a version must be before those before it are deleted: by then no broker has rows in memory
    /// that are under them. Nothing is wrong if one does, but it would have to read again.
    pub(crate) settle: Duration,
}

/// What this broker has done of it, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    resealed: AtomicU64,
    rewrapped: AtomicU64,
    last_error: Mutex<String>,
}

/// Something that is to be done to all keys, as [`KeyWork::name`] has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Task {
    /// A new version of every tenant's key.
    RotateAll,
    /// Every key under a root wrapped under its current key.
    Rewrap(Option<RootName>),
}

/// What came of a look around.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) worked: bool,
    pub(crate) failed: bool,
}

/// What came of some rows.
#[derive(Debug, Default)]
struct Anew {
    resealed: Vec<Resealed>,
    failed: u32,
    failure: Option<Why>,
}

/// The most keys that are read at a time.
const KEYS: u32 = 1000;

impl Pace {
    /// For a broker whose tenants' keys stay in memory for so long.
    pub(crate) fn gentle(kek_ttl: Duration) -> Self {
        Self {
            rows: 64,
            between: Duration::from_millis(20),
            idle: Duration::from_secs(2),
            after_failure: Duration::from_secs(30),
            settle: kek_ttl,
        }
    }
}

impl Task {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::RotateAll => "rotate".to_owned(),
            Self::Rewrap(None) => "rewrap".to_owned(),
            Self::Rewrap(Some(root)) => format!("rewrap/{root}"),
        }
    }

    pub(crate) fn of(work: &KeyWork) -> Option<Self> {
        match work.name.split_once('/') {
            None if work.name == "rotate" => Some(Self::RotateAll),
            None if work.name == "rewrap" => Some(Self::Rewrap(None)),
            Some(("rewrap", root)) => root.parse().ok().map(|root| Self::Rewrap(Some(root))),
            Some(_) | None => None,
        }
    }
}

impl Progress {
    pub(crate) fn resealed(&self) -> u64 {
        self.resealed.load(Ordering::Relaxed)
    }

    pub(crate) fn rewrapped(&self) -> u64 {
        self.rewrapped.load(Ordering::Relaxed)
    }

    pub(crate) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

impl Rekeying {
    pub(crate) fn new(core: Arc<Core>, pace: Pace) -> Self {
        Self { core, pace, stuck: HashMap::new(), waits: HashMap::new() }
    }

    /// Looks around for as long as this broker leads, until `stop`.
    pub(crate) async fn run(mut self, mut leads: watch::Receiver<bool>, stop: CancellationToken) {
        loop {
            let leading = *leads.borrow_and_update();
            let turn = if leading {
                // A commit that was begun is finished by the store, whoever waits for it.
                select! {
                    turn = self.turn() => turn,
                    () = stop.cancelled() => break,
                    _ = leads.wait_for(|leads| !leads) => continue,
                }
            } else {
                Turn::default()
            };
            let pause = if turn.worked { self.pace.between } else { self.pace.idle };
            select! {
                () = stop.cancelled() => break,
                changed = leads.changed() => if changed.is_err() { break },
                () = sleep(pause) => {}
            }
        }
    }

    /// Does some of what there is to do, for each tenant and each thing that was asked for.
    pub(crate) async fn turn(&mut self) -> Turn {
        let now = self.core.clock.elapsed();
        self.waits.retain(|_, until| *until > now);
        let mut turn = Turn::default();
        if !self.waits.contains_key(&Part::Everything) {
            let outcome = self.look(&mut turn).await;
            self.note(&mut turn, Part::Everything, (Turn::default(), outcome));
        }
        if turn.worked && self.waits.is_empty() {
            self.core.rekeyed.set_error(String::new());
        }
        turn
    }

    async fn look(&mut self, turn: &mut Turn) -> Result<(), Why> {
        for work in self.core.key_work().await?.into_iter().filter(|work| !work.done) {
            let part = Part::Asked(work.name.clone());
            if self.waits.contains_key(&part) {
                continue;
            }
            let mut own = Turn::default();
            let outcome = match Task::of(&work) {
                Some(Task::RotateAll) => self.rotate_all(&work, &mut own).await,
                Some(Task::Rewrap(root)) => self.rewrap(&work, root.as_ref(), &mut own).await,
                None => Ok(()),
            };
            self.note(turn, part, (own, outcome));
        }
        for newest in self.core.store.keys_in_rotation(KEYS).await? {
            let part = Part::Of(newest.key.tenant_uid);
            if !self.waits.contains_key(&part) {
                let mut own = Turn::default();
                let outcome = self.reseal(&newest, &mut own).await;
                self.note(turn, part, (own, outcome));
            }
        }
        Ok(())
    }

    /// Makes the new versions that are still missing.
    async fn rotate_all(&self, work: &KeyWork, turn: &mut Turn) -> Result<(), Why> {
        let core = &self.core;
        let due = core.store.keys_from_before(work.begun_at, KEYS).await?;
        let mut failure = Ok(());
        for newest in &due {
            let added = async {
                let now = core.store.now().await?;
                let key = core.custody.next_key(newest, work.request_id.clone(), now).await?;
                let record = of_key(Kind::KekRotated, newest, &key);
                core.change(&Change::AddKey(key), record).await
            };
            match added.await {
                // Someone else was first.
                Ok(_) | Err(Why::Store(StoreError::Exists(_))) => turn.worked = true,
                Err(why) => failure = Err(why),
            }
            sleep(self.pace.between).await;
        }
        failure?;
        if due.len() < KEYS as usize {
            core.end_key_work(work).await?;
        }
        Ok(())
    }

    /// Wraps keys of one root under its current key.
    async fn rewrap(
        &self,
        work: &KeyWork,
        root: Option<&RootName>,
        turn: &mut Turn,
    ) -> Result<(), Why> {
        let (core, roots) = (&self.core, self.core.custody.roots());
        let current = roots.status_of(root).await?;
        let root_key = Sha256::digest(&current.key_ref).to_vec();
        let (mut after, mut failure) = (None, Ok(()));
        loop {
            let keys = core.store.wrapped_keys(after, KEYS).await?;
            for of in &keys {
                let wrapped = WrappedKey::from_bytes(of.key.wrapped.clone());
                let theirs = roots.root_of(&wrapped).as_ref() == root;
                let under = roots.wrapped_by(&wrapped).filter(|_| theirs);
                if under.is_none_or(|under| under == current.key_ref) {
                    continue;
                }
                let rewrapped = async {
                    let key = core.custody.rewrapped(of).await?;
                    let record = Record {
                        root_key_sha256: root_key.clone().into(),
                        ..of_key(Kind::KeyRewrapped, of, &key)
                    };
                    let change = Change::RewrapKey(key, of.key.wrapped.clone());
                    core.change(&change, record).await
                };
                match rewrapped.await {
                    Ok(_) => {
                        turn.worked = true;
                        core.rekeyed.rewrapped.fetch_add(1, Ordering::Relaxed);
                        metrics::counter!("strongroom_keys_rewrapped_total").increment(1);
                    }
                    // Someone else was first, or the version was retired meanwhile.
                    Err(Why::Store(StoreError::Changed(_))) => {}
                    Err(why) => failure = Err(why),
                }
                sleep(self.pace.between).await;
            }
            after = keys.last().map(|of| (of.key.uid, of.key.version));
            if keys.len() < KEYS as usize {
                break;
            }
        }
        failure?;
        core.end_key_work(work).await
    }

    /// Seals some rows of a tenant anew; when there are none left, deletes the old versions.
    async fn reseal(&mut self, newest: &TenantKey, turn: &mut Turn) -> Result<(), Why> {
        let tenant = newest.key.tenant_uid;
        let mut stuck = self.stuck.remove(&tenant).unwrap_or_default();
        loop {
            let limit = self.pace.rows.saturating_add(stuck);
            let stale = self.core.store.stale(newest, limit).await?;
            if stale.is_empty() {
                return self.retire(newest, turn).await;
            }
            let Anew { resealed, failed, failure } = self.seal_anew(newest, &stale).await?;
            if !resealed.is_empty() {
                let replaced = self.core.store.reseal(&resealed).await?;
                turn.worked = true;
                self.core.rekeyed.resealed.fetch_add(replaced, Ordering::Relaxed);
                metrics::counter!("strongroom_rows_resealed_total").increment(replaced);
                self.stuck.insert(tenant, failed);
                sleep(self.pace.between).await;
                // What failed is told of once nothing else is left to do.
                return Ok(());
            }
            if stale.len() < limit as usize {
                return failure.map_or(Ok(()), Err);
            }
            stuck = failed;
        }
    }

    async fn seal_anew(&self, newest: &TenantKey, stale: &[Stale]) -> Result<Anew, Why> {
        let core = &self.core;
        let keys = core.store.keys(newest.key.tenant_uid, KeyPurpose::Kek).await?;
        core.custody.check_roots(&newest.tenant, &keys)?;
        let uid = newest.key.tenant_uid;
        let holder = Holder { tenant: &newest.tenant, uid, keys: &keys };
        let mut anew = Anew::default();
        for row in stale {
            let mac = |row: &_| core.people.mac(row);
            let resealed = match core.people.check_stale(row) {
                Ok(()) => core.custody.reseal(holder, row, mac).await,
                Err(why) => Err(why),
            };
            match resealed {
                Ok(row) => anew.resealed.push(row),
                // All the others would say the same.
                Err(why @ Why::Kms(_)) => return Err(why),
                Err(why) => {
                    anew.failed += 1;
                    anew.failure = Some(self.naming(newest, row, why).await);
                }
            }
        }
        Ok(anew)
    }

    /// Says of what does not open whose it is, as people call it.
    async fn naming(&self, of: &TenantKey, row: &Stale, why: Why) -> Why {
        let Why::Corrupt(what) = &why else { return why };
        let whose = match row {
            Stale::Version(row, _) => {
                let tenant = self.core.directory.tenant(&of.tenant).await.ok().flatten();
                let held = tenant.as_ref().into_iter().flat_map(|tenant| &tenant.credentials);
                let held = held.map(|held| &held.row).find(|it| it.uid == row.credential_uid);
                let name = held.map(|it| it.name().to_string());
                let name =
                    name.unwrap_or_else(|| format!("a credential of {}", of.tenant.resource()));
                format!("{name}, version {}", row.version)
            }
            Stale::Person(_) => {
                format!("the name of a person, under the key of {}", of.tenant.resource())
            }
            // Their own words name them.
            Stale::Tenant(_)
            | Stale::Credential(_)
            | Stale::VirtualKey(_)
            | Stale::Budget(_)
            | Stale::Test(_) => return why,
        };
        Why::Corrupt(format!("{what}: {whose}"))
    }

    async fn retire(&self, newest: &TenantKey, turn: &mut Turn) -> Result<(), Why> {
        let now = self.core.store.now().await?;
        if now.since(newest.key.created_at) < self.pace.settle {
            return Ok(());
        }
        let record = of_key(Kind::KekRetired, newest, &newest.key);
        let change = Change::RetireKeys(newest.key.clone());
        match self.core.change(&change, record).await {
            // Something was written under an old version meanwhile: it is found the next time.
            Ok(_) | Err(Why::Store(StoreError::Changed(_))) => {
                turn.worked = true;
                Ok(())
            }
            Err(why) => Err(why),
        }
    }

    /// Adds what came of a part. One that comes nowhere waits.
    fn note(&mut self, turn: &mut Turn, part: Part, (own, outcome): (Turn, Result<(), Why>)) {
        turn.worked |= own.worked;
        if let Err(why) = outcome {
            turn.failed = true;
            if !own.worked {
                let until = self.core.clock.elapsed() + self.pace.after_failure;
                self.waits.insert(part, until);
            }
            let refused = crate::refused::Refused::from(why);
            tracing::warn!(error = %refused, "stored keys and rows wait to be brought up to date");
            metrics::counter!("strongroom_rekeying_failures_total").increment(1);
            self.core.rekeyed.set_error(refused.to_string());
        }
    }
}

impl Core {
    /// What was asked to be done to all keys. What no broker has put down so is not done.
    pub(crate) async fn key_work(&self) -> Result<Vec<KeyWork>, Why> {
        Ok(self.passed.genuine(self.store.key_work().await?, &self.row_key))
    }

    async fn end_key_work(&self, work: &KeyWork) -> Result<(), Why> {
        let done = KeyWork { done: true, ..work.clone() };
        Ok(self.store.end_key_work(&done.sealed(&self.row_key)).await?)
    }
}

/// A record about a version of a tenant's key.
pub(crate) fn of_key(kind: Kind, of: &TenantKey, key: &store::KeyRow) -> Record {
    Record {
        kind: kind.into(),
        tenant: of.tenant.to_string(),
        kek_id: key.uid.as_bytes().to_vec().into(),
        kek_version: key.version,
        ..Record::default()
    }
}
