//! What a keyring promises, over a KMS that answers when it is told to.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::{Key, ManualClock, Timestamp, Uid};
use envelope::{KeyContext, Keyring, KeyringSettings, Kms, KmsError, KmsStatus, WrappedKey};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::context;

#[tokio::test]
async fn five_hundred_first_loads_are_one_call() {
    let scene = Scene::new();
    let mut loads = JoinSet::new();
    for _ in 0..500 {
        let keyring = Arc::clone(&scene.keyring);
        loads.spawn(async move { keyring.kek(&context(), &wrapped()).await.map(|_| ()) });
    }
    scene.kms.begun(1).await;
    scene.kms.answer(500);
    while let Some(loaded) = loads.join_next().await {
        loaded.unwrap().unwrap();
    }
    assert_eq!(scene.kms.calls(), 1);
}

#[tokio::test]
async fn a_key_in_the_keyring_costs_no_call() {
    let scene = Scene::answering();
    for _ in 0..10_000 {
        scene.load().await.unwrap();
    }
    assert_eq!(scene.kms.calls(), 1);
    assert_eq!(scene.keyring.counts().hits, 9_999);
}

#[tokio::test]
async fn another_version_and_another_owner_are_other_keys() {
    let scene = Scene::answering();
    scene.load().await.unwrap();
    let other = KeyContext { version: 2, ..context() };
    assert_eq!(scene.keyring.kek(&other, &wrapped()).await.unwrap().reference().1, 2);
    let other = KeyContext { owner: Uid::from_bytes([9; 16]), ..context() };
    scene.keyring.kek(&other, &wrapped()).await.unwrap();
    assert_eq!(scene.kms.calls(), 3);
}

#[tokio::test]
async fn five_hundred_who_wait_share_one_failure() {
    let scene = Scene::new();
    scene.kms.fail_next(Failure::Unavailable);
    let mut loads = JoinSet::new();
    for _ in 0..500 {
        let keyring = Arc::clone(&scene.keyring);
        loads.spawn(async move { keyring.kek(&context(), &wrapped()).await.map(|_| ()) });
    }
    scene.kms.begun(1).await;
    // All of them are in line by now: there is one thread, and it has nothing else to do.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    scene.kms.answer(500);
    while let Some(loaded) = loads.join_next().await {
        assert!(matches!(loaded.unwrap(), Err(KmsError::Unavailable(_))));
    }
    assert_eq!(scene.kms.calls(), 1);
}

#[tokio::test]
async fn a_key_is_not_used_past_the_hard_limit() {
    let scene = Scene::answering();
    scene.load().await.unwrap();
    scene.kms.fail_always(Failure::Unavailable);
    scene.clock.advance(Duration::from_millis(299_999));
    scene.load().await.unwrap();
    scene.clock.advance(Duration::from_millis(1));
    assert!(matches!(scene.load().await, Err(KmsError::Unavailable(_))));
}

#[tokio::test]
async fn the_hard_limit_counts_from_the_question_not_from_the_answer() {
    let scene = Scene::new();
    let keyring = Arc::clone(&scene.keyring);
    let mut load = JoinSet::new();
    load.spawn(async move { keyring.kek(&context(), &wrapped()).await.map(|_| ()) });
    scene.kms.begun(1).await;
    scene.clock.advance(Duration::from_secs(200));
    scene.kms.answer(1);
    load.join_next().await.unwrap().unwrap().unwrap();

    scene.clock.advance(Duration::from_secs(100));
    scene.kms.answer(1);
    scene.load().await.unwrap();
    assert_eq!(scene.kms.calls(), 2);
}

#[tokio::test]
async fn a_key_in_use_is_renewed_ten_seconds_early_in_the_background() {
    let scene = Scene::answering();
    scene.load().await.unwrap();
    scene.clock.advance(Duration::from_secs(289));
    scene.load().await.unwrap();
    assert_eq!(scene.keyring.counts().renewals, 0);

    scene.clock.advance(Duration::from_secs(1));
    scene.load().await.unwrap();
    scene.load().await.unwrap();
    scene.kms.begun(2).await;
    assert_eq!(scene.keyring.counts().renewals, 1);

    scene.settle().await;
    scene.clock.advance(Duration::from_secs(289));
    scene.load().await.unwrap();
    assert_eq!(scene.kms.calls(), 2);
}

#[tokio::test]
async fn a_renewal_that_fails_is_tried_again_and_the_key_serves_meanwhile() {
    let scene = Scene::answering();
    scene.load().await.unwrap();
    scene.clock.advance(Duration::from_secs(291));
    scene.kms.fail_next(Failure::Unavailable);
    scene.load().await.unwrap();
    scene.kms.begun(2).await;
    scene.settle().await;
    scene.clock.advance(Duration::from_secs(1));
    scene.load().await.unwrap();
    scene.kms.begun(3).await;
    assert_eq!(scene.keyring.counts().renewals, 2);
}

#[tokio::test]
async fn a_forgotten_key_is_asked_for_again() {
    let scene = Scene::answering();
    scene.load().await.unwrap();
    scene.keyring.invalidate(Uid::from_bytes([9; 16]));
    scene.load().await.unwrap();
    assert_eq!(scene.kms.calls(), 1);
    scene.keyring.invalidate(context().key);
    scene.load().await.unwrap();
    assert_eq!(scene.kms.calls(), 2);
    scene.keyring.invalidate_all();
    scene.load().await.unwrap();
    assert_eq!(scene.kms.calls(), 3);
}

#[tokio::test]
async fn a_load_that_began_before_an_invalidation_brings_nothing_back() {
    let scene = Scene::new();
    let keyring = Arc::clone(&scene.keyring);
    let mut load = JoinSet::new();
    load.spawn(async move { keyring.kek(&context(), &wrapped()).await.map(|_| ()) });
    scene.kms.begun(1).await;
    scene.keyring.invalidate(context().key);
    // The key was disabled meanwhile: what is asked after the invalidation hears of it.
    scene.kms.fail_after_next(Failure::Refused);
    scene.kms.answer(2);
    let loaded = load.join_next().await.unwrap().unwrap();
    assert!(matches!(loaded, Err(KmsError::Refused(_))), "{loaded:?}");
    assert_eq!(scene.kms.calls(), 2);
}

#[tokio::test]
async fn a_load_whose_caller_went_away_does_not_hold_up_the_next() {
    let scene = Scene::new();
    let mut load = JoinSet::new();
    let keyring = Arc::clone(&scene.keyring);
    load.spawn(async move { keyring.kek(&context(), &wrapped()).await.map(|_| ()) });
    scene.kms.begun(1).await;
    load.shutdown().await;
    scene.kms.answer(1);
    scene.load().await.unwrap();
    assert_eq!(scene.kms.calls(), 2);
}

#[tokio::test]
async fn a_kms_that_does_not_answer_is_spared() {
    let scene = Scene::answering();
    scene.kms.fail_always(Failure::Unavailable);
    for _ in 0..100 {
        assert!(matches!(scene.load().await, Err(KmsError::Unavailable(_))));
    }
    assert_eq!(scene.kms.calls(), 5);
    assert_eq!(scene.keyring.counts().breaker_opened, 1);

    scene.clock.advance(Duration::from_secs(3));
    for _ in 0..100 {
        assert!(matches!(scene.load().await, Err(KmsError::Unavailable(_))));
    }
    assert_eq!(scene.kms.calls(), 6);

    scene.kms.recover();
    scene.clock.advance(Duration::from_secs(3));
    scene.load().await.unwrap();
    assert_eq!(scene.kms.calls(), 7);
}

#[tokio::test]
async fn a_kms_that_says_no_is_not_spared() {
    let scene = Scene::answering();
    for failure in [Failure::Refused, Failure::Corrupt] {
        scene.kms.fail_always(failure);
        for _ in 0..10 {
            assert!(scene.load().await.is_err());
        }
    }
    assert_eq!(scene.kms.calls(), 20);
    assert_eq!(scene.keyring.counts().failures, 20);
    assert_eq!(scene.keyring.counts().breaker_opened, 0);
}

#[tokio::test]
async fn a_key_outlives_its_time_by_the_grace_for_outages_and_only_to_open() {
    let scene = Scene::past_its_time().await;
    scene.kms.fail_always(Failure::Unavailable);
    assert!(matches!(scene.load().await, Err(KmsError::Unavailable(_))), "nothing is sealed");
    assert!(scene.overdue().await.unwrap());
    scene.clock.advance(Duration::from_mins(10) - Duration::from_millis(1));
    assert!(scene.overdue().await.unwrap());
    assert_eq!(scene.keyring.counts().overdue, 2);
    scene.clock.advance(Duration::from_millis(1));
    assert!(matches!(scene.overdue().await, Err(KmsError::Unavailable(_))));

    scene.kms.recover();
    scene.clock.advance(Duration::from_secs(3));
    assert!(!scene.overdue().await.unwrap());
}

#[tokio::test]
async fn a_kms_that_says_no_ends_the_grace() {
    let scene = Scene::past_its_time().await;
    scene.kms.fail_next(Failure::Refused);
    assert!(matches!(scene.overdue().await, Err(KmsError::Refused(_))));
    scene.kms.fail_always(Failure::Unavailable);
    assert!(matches!(scene.overdue().await, Err(KmsError::Unavailable(_))));
}

#[tokio::test]
async fn without_a_grace_no_key_is_used_past_its_time() {
    let scene = Scene::answering();
    scene.overdue().await.unwrap();
    scene.clock.advance(Duration::from_mins(5));
    scene.kms.fail_always(Failure::Unavailable);
    assert!(matches!(scene.overdue().await, Err(KmsError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_kms_that_is_silent_is_not_waited_for() {
    let scene = Scene::new();
    let began = tokio::time::Instant::now();
    assert!(matches!(scene.load().await, Err(KmsError::Unavailable(_))));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_cold_tenants_are_a_thousand_calls_at_the_set_rate() {
    let calls_per_second = 400;
    let settings = KeyringSettings { calls_per_second, ..KeyringSettings::default() };
    let scene = Scene::with(settings);
    scene.kms.answer(1_000_000);
    let began = tokio::time::Instant::now();
    let mut turned_away = 0;
    for tenant in 0..1_000_u32 {
        let mut owner = [0; 16];
        owner[..4].copy_from_slice(&tenant.to_be_bytes());
        let context = KeyContext { owner: Uid::from_bytes(owner), ..context() };
        // As a caller does that is told to try again.
        while scene.keyring.kek(&context, &wrapped()).await.is_err() {
            turned_away += 1;
            tokio::time::advance(Duration::from_millis(10)).await;
            scene.clock.advance(Duration::from_millis(10));
        }
    }
    assert_eq!(scene.kms.calls(), 1_000);
    assert!(turned_away > 0, "the clock of the test stands still: somebody has to wait");
    assert!(began.elapsed() >= Duration::from_millis(2_200), "{:?}", began.elapsed());
    assert_eq!(scene.keyring.counts().failures, 0, "to be turned away is no failure of the KMS");
}

#[derive(Clone, Copy, Debug)]
enum Failure {
    Unavailable,
    Refused,
    Corrupt,
}

/// Answers as often as it is allowed to, and fails as it is told to.
#[derive(Debug)]
struct ScriptedKms {
    turns: Semaphore,
    begun: Semaphore,
    calls: AtomicU64,
    script: Mutex<VecDeque<Option<Failure>>>,
    always: Mutex<Option<Failure>>,
}

impl ScriptedKms {
    fn answer(&self, times: usize) {
        self.turns.add_permits(times);
    }

    fn fail_next(&self, failure: Failure) {
        self.script.lock().unwrap().push_back(Some(failure));
    }

    fn fail_after_next(&self, failure: Failure) {
        self.script.lock().unwrap().extend([None, Some(failure)]);
    }

    fn fail_always(&self, failure: Failure) {
        *self.always.lock().unwrap() = Some(failure);
    }

    fn recover(&self) {
        *self.always.lock().unwrap() = None;
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits until so many calls have begun, in all.
    async fn begun(&self, calls: u32) {
        drop(self.begun.acquire_many(calls).await.unwrap());
    }
}

#[async_trait]
impl Kms for ScriptedKms {
    async fn generate(&self, _: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        Err(KmsError::Corrupt)
    }

    async fn wrap(&self, _: &KeyContext, _: &Key) -> Result<WrappedKey, KmsError> {
        Err(KmsError::Corrupt)
    }

    async fn unwrap(&self, _: &KeyContext, _: &WrappedKey) -> Result<Key, KmsError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.begun.add_permits(1);
        self.turns.acquire().await.unwrap().forget();
        let scripted = self.script.lock().unwrap().pop_front().flatten();
        let why = || Arc::new(std::io::Error::other("as told"));
        match scripted.or(*self.always.lock().unwrap()) {
            None => Ok(Key::take(&mut [7; 32])),
            Some(Failure::Unavailable) => Err(KmsError::Unavailable(why())),
            Some(Failure::Refused) => Err(KmsError::Refused(why())),
            Some(Failure::Corrupt) => Err(KmsError::Corrupt),
        }
    }

    async fn rewrap(&self, _: &KeyContext, _: &WrappedKey) -> Result<WrappedKey, KmsError> {
        Err(KmsError::Corrupt)
    }

    async fn status(&self) -> KmsStatus {
        KmsStatus { key_ref: "scripted".to_owned(), healthy: true }
    }

    fn wrapped_by(&self, _: &WrappedKey) -> Option<String> {
        None
    }
}

struct Scene {
    kms: Arc<ScriptedKms>,
    clock: Arc<ManualClock>,
    keyring: Arc<Keyring>,
}

impl Scene {
    /// With a KMS that waits for permission to answer.
    fn new() -> Self {
        Self::with(KeyringSettings::default())
    }

    fn with(settings: KeyringSettings) -> Self {
        let kms = Arc::new(ScriptedKms {
            turns: Semaphore::new(0),
            begun: Semaphore::new(0),
            calls: AtomicU64::new(0),
            script: Mutex::default(),
            always: Mutex::default(),
        });
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
        let keyring = Keyring::new(
            Arc::clone(&kms) as Arc<dyn Kms>,
            Arc::clone(&clock) as Arc<dyn domain::Clock>,
            settings,
        );
        Self { kms, clock, keyring: Arc::new(keyring) }
    }

    /// With a KMS that answers at once.
    fn answering() -> Self {
        let scene = Self::new();
        scene.kms.answer(1_000_000);
        scene
    }

    /// With ten minutes of grace, and a key at hand that is just past its time.
    async fn past_its_time() -> Self {
        let outage_grace = Duration::from_mins(10);
        let scene = Self::with(KeyringSettings { outage_grace, ..KeyringSettings::default() });
        scene.kms.answer(1_000_000);
        assert!(!scene.overdue().await.unwrap());
        scene.clock.advance(Duration::from_mins(5));
        scene
    }

    /// Whether the key that opens is past its time.
    async fn overdue(&self) -> Result<bool, KmsError> {
        let kek = self.keyring.kek_or_overdue(&context(), &wrapped()).await?;
        Ok(kek.is_overdue())
    }

    async fn load(&self) -> Result<(), KmsError> {
        let kek = self.keyring.kek(&context(), &wrapped()).await?;
        assert_eq!(kek.reference(), (context().key, context().version));
        Ok(())
    }

    /// Lets the background do what it can: there is one thread.
    async fn settle(&self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

fn wrapped() -> WrappedKey {
    WrappedKey::from_bytes(vec![1, 2, 3])
}
