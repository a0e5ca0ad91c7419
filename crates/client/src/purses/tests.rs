use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use domain::{Cost, ManualClock, Source, Spending, Timestamp, Unit, VirtualKeyDigest};
use strongroom_proto::v1::{self, Allowance, LimitView};
use tonic::Code;

use super::*;

/// A broker with one limit of requests.
#[derive(Debug)]
struct Script {
    left: Mutex<u64>,
    /// Grants so many times what is needed at the most.
    generosity: u64,
    draws: AtomicUsize,
    granted: Mutex<HashMap<Vec<u8>, u64>>,
    settled: Mutex<HashMap<Vec<u8>, Settlement>>,
    usage: Mutex<Vec<UsageRecord>>,
    /// What was done is not answered.
    loses_answers: AtomicBool,
    is_unlimited: AtomicBool,
    /// When a limit that is reached renews.
    renews_after: Mutex<Option<Duration>>,
}

impl Script {
    fn with(left: u64, generosity: u64) -> Arc<Self> {
        Arc::new(Self {
            left: Mutex::new(left),
            generosity,
            draws: AtomicUsize::new(0),
            granted: Mutex::default(),
            settled: Mutex::default(),
            usage: Mutex::default(),
            loses_answers: AtomicBool::new(false),
            is_unlimited: AtomicBool::new(false),
            renews_after: Mutex::default(),
        })
    }

    fn draws(&self) -> usize {
        self.draws.load(Ordering::SeqCst)
    }

    fn left(&self) -> u64 {
        *self.left.lock().unwrap()
    }

    fn lost(&self) -> Result<(), LeaseError> {
        let is_lost = self.loses_answers.load(Ordering::SeqCst);
        if is_lost { Err(LeaseError::Unavailable { retry_after: RETRY_AFTER }) } else { Ok(()) }
    }
}

#[async_trait]
impl Till for Script {
    async fn draw(&self, _: &PurseKey, request: AllowanceRequest) -> Result<Allowance, LeaseError> {
        self.draws.fetch_add(1, Ordering::SeqCst);
        // Others get a turn while this one is under way.
        tokio::task::yield_now().await;
        let of = |amounts: Option<v1::Amounts>| amounts.unwrap_or_default().requests;
        let (need, wanted) = (of(request.need), of(request.wanted));
        let id = request.allowance_id.to_vec();
        let before = self.granted.lock().unwrap().get(&id).copied();
        let granted = before.unwrap_or_else(|| wanted.min(need * self.generosity).max(need));
        let mut left = self.left.lock().unwrap();
        let granted = granted.min((*left).max(need));
        if before.is_none() {
            if need > *left {
                return Err(LeaseError::Refused {
                    code: Code::ResourceExhausted,
                    reason: "BUDGET_EXHAUSTED".to_owned(),
                    message: String::new(),
                    metadata: HashMap::from([
                        ("unit".to_owned(), "requests".to_owned()),
                        ("cap".to_owned(), "1000".to_owned()),
                        ("left".to_owned(), left.to_string()),
                    ]),
                    retry_after: *self.renews_after.lock().unwrap(),
                });
            }
            *left -= granted;
            self.granted.lock().unwrap().insert(id, granted);
        }
        self.lost()?;
        let unlimited = self.is_unlimited.load(Ordering::SeqCst);
        Ok(Allowance {
            allowance_id: request.allowance_id.clone(),
            granted: Some(v1::Amounts { requests: granted, ..v1::Amounts::default() }),
            limited: if unlimited { Vec::new() } else { vec![v1::Unit::Requests.into()] },
            ttl: Duration::from_mins(5).try_into().ok(),
            expire_time: None,
            limits: vec![LimitView {
                unit: v1::Unit::Requests.into(),
                cap: 1000,
                left: *left,
                renews_after: None,
                budget: String::new(),
                is_rate: false,
            }],
        })
    }

    async fn settle(
        &self,
        settlements: &[Settlement],
        usage: &[UsageRecord],
    ) -> Result<Vec<NotAccepted>, LeaseError> {
        for told in settlements {
            let id = told.allowance_id.to_vec();
            let mut settled = self.settled.lock().unwrap();
            let before = settled.insert(id, told.clone());
            let returned = |it: Option<&Settlement>| {
                it.and_then(|it| it.returned).map_or(0, |amounts| amounts.requests)
            };
            *self.left.lock().unwrap() += returned(Some(told)) - returned(before.as_ref());
        }
        self.lost()?;
        self.usage.lock().unwrap().extend_from_slice(usage);
        Ok(Vec::new())
    }
}

fn purses(till: &Arc<Script>) -> (Purses, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let purses =
        Purses::new(Arc::clone(till) as Arc<dyn Till>, Arc::clone(&clock) as Arc<dyn Clock>);
    // What the tests tell, they tell themselves.
    purses.tasks.end();
    (purses, clock)
}

fn key() -> PurseKey {
    PurseKey {
        virtual_key: "aaaaaaaaaaaaaaaa".parse().unwrap(),
        digest: VirtualKeyDigest::from_bytes([7; 32]),
    }
}

fn one() -> Amounts {
    Amounts::of_call(Cost::ZERO, 0, 0)
}

fn spent() -> Spending {
    Spending { requests: 1, ..Spending::default() }
}

#[tokio::test]
async fn however_many_calls_wait_the_broker_is_asked_once() {
    let till = Script::with(1000, 1000);
    let (purses, clock) = purses(&till);
    let (key, need) = (key(), one());
    let calls = (0..50).map(|_| purses.reserve(&key, &need, Duration::ZERO));
    let mut held = Vec::new();
    for call in calls {
        held.push(call.await.unwrap());
    }
    assert!(till.draws() < 10, "{}", till.draws());
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (purses, key) = (purses.clone(), key.clone());
        set.spawn(async move { purses.reserve(&key, &one(), Duration::ZERO).await.unwrap() });
    }
    let before = till.draws();
    held.extend(set.join_all().await);
    assert!(till.draws() - before < 10, "{}", till.draws() - before);
    assert_eq!(held.first().unwrap().states(clock.elapsed()).first().unwrap().cap, 1000);
    for held in held {
        held.end(&spent(), Source::Byok);
    }
    while purses.inner.tell().await.unwrap() {}
    clock.advance(Duration::from_secs(3));
    while purses.inner.tell().await.unwrap() {}
    assert_eq!(till.left(), 1000 - 150);
}

#[tokio::test]
async fn a_call_is_refused_only_when_what_lies_about_here_is_given_back() {
    let till = Script::with(10, 8);
    let (purses, _) = purses(&till);
    let of = |count: u64| Amounts::default().with(Unit::Requests, count);
    // A slice of which most is left over.
    purses.reserve(&key(), &of(1), Duration::ZERO).await.unwrap().end(&spent(), Source::Byok);
    purses.reserve(&key(), &of(1), Duration::ZERO).await.unwrap().end(&spent(), Source::Byok);
    let held = purses.reserve(&key(), &of(8), Duration::ZERO).await.unwrap();
    let refused = purses.reserve(&key(), &of(1), Duration::ZERO).await.unwrap_err();
    assert!(refused.is_limit());
    let asked = till.draws();
    assert!(purses.reserve(&key(), &of(2), Duration::ZERO).await.unwrap_err().is_limit());
    assert_eq!(till.draws(), asked, "the same no is not asked for twice in a moment");
    held.release();
}

fn requests(count: u64) -> Amounts {
    Amounts::default().with(Unit::Requests, count)
}

/// A budget of which 3 are left, and one call for 5 that was refused.
async fn refused() -> (Arc<Script>, Purses, Arc<ManualClock>) {
    let till = Script::with(3, 1);
    let (purses, clock) = purses(&till);
    clock.advance(Duration::from_secs(1));
    assert!(purses.reserve(&key(), &requests(5), Duration::ZERO).await.unwrap_err().is_limit());
    assert_eq!(till.draws(), 1);
    (till, purses, clock)
}

#[tokio::test]
async fn however_often_a_call_is_refused_the_broker_is_asked_once_a_second() {
    let (till, purses, clock) = refused().await;
    for need in (4..1000).chain([4; 1000]) {
        let answer = purses.reserve(&key(), &requests(need), Duration::ZERO).await;
        assert!(answer.unwrap_err().is_limit());
    }
    clock.advance(Duration::from_millis(999));
    purses.reserve(&key(), &requests(5), Duration::ZERO).await.unwrap_err();
    assert_eq!(till.draws(), 1);
    clock.advance(Duration::from_millis(1));
    purses.reserve(&key(), &requests(5), Duration::ZERO).await.unwrap_err();
    assert_eq!(till.draws(), 2);
}

#[tokio::test]
async fn a_refusal_is_none_to_a_call_that_needs_less_than_is_left() {
    let (till, purses, _) = refused().await;
    let held = purses.reserve(&key(), &requests(3), Duration::ZERO).await.unwrap();
    assert_eq!(till.draws(), 2);
    held.release();
}

#[tokio::test]
async fn a_refusal_ends_with_the_limits_renewal_and_says_how_far_that_is() {
    let till = Script::with(0, 1);
    let (purses, clock) = purses(&till);
    *till.renews_after.lock().unwrap() = Some(Duration::from_millis(300));
    purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap_err();
    clock.advance(Duration::from_millis(100));
    let again = purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap_err();
    let LeaseError::Refused { retry_after, .. } = again else { panic!("{again:?}") };
    assert_eq!((retry_after, till.draws()), (Some(Duration::from_millis(200)), 1));
    let state = purses.states(&key()).remove(0);
    assert_eq!((state.unit, state.cap, state.left), (Unit::Requests, 1000, 0));
    assert_eq!((state.renews_after, state.is_rate), (retry_after, false));
    clock.advance(Duration::from_millis(200));
    purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap_err();
    assert_eq!(till.draws(), 2);
}

#[tokio::test]
async fn a_changed_budget_ends_a_refusal_at_once() {
    let (till, purses, clock) = refused().await;
    *till.left.lock().unwrap() = 100;
    clock.advance(Duration::from_millis(1));
    // The lease was revoked with the change, and acquired anew.
    let held = purses.reserve(&key(), &requests(5), clock.elapsed()).await.unwrap();
    held.release();
}

#[tokio::test]
async fn a_refusal_of_older_rules_is_not_kept() {
    let (till, purses, clock) = refused().await;
    clock.advance(Duration::from_millis(5));
    let purse = purses.inner.purse(&key());
    let asked = clock.elapsed();
    clock.advance(Duration::from_millis(5));
    // A call whose lease is of now finds no room here, while the answer to an older question comes.
    assert!(purse.begin(&requests(5), clock.elapsed(), clock.elapsed()).is_none());
    let request = AllowanceRequest { need: Some(wire_amounts(&requests(5))), ..Default::default() };
    let late = till.draw(&key(), request).await.unwrap_err();
    purse.refuse(&late, asked, clock.elapsed());
    assert!(purse.refused(&requests(5), clock.elapsed()).is_none());
}

#[tokio::test]
async fn what_is_given_back_here_ends_a_refusal_at_once() {
    let till = Script::with(5, 1);
    let (purses, clock) = purses(&till);
    purses.reserve(&key(), &requests(1), Duration::ZERO).await.unwrap().end(&spent(), Source::Byok);
    let held = purses.reserve(&key(), &requests(4), Duration::ZERO).await.unwrap();
    purses.reserve(&key(), &requests(2), Duration::ZERO).await.unwrap_err();
    let draws = till.draws();
    held.end(&spent(), Source::Byok);
    // Near a limit, what nobody wants is given back soon.
    clock.advance(Duration::from_millis(200));
    while purses.inner.tell().await.unwrap() {}
    assert_eq!(till.left(), 3);
    let held = purses.reserve(&key(), &requests(3), Duration::ZERO).await.unwrap();
    assert_eq!(till.draws(), draws + 1);
    held.release();
}

#[tokio::test]
async fn what_is_told_is_told_again_until_it_is_taken() {
    let till = Script::with(100, 1);
    let (purses, clock) = purses(&till);
    purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap().end(&spent(), Source::Byok);
    purses.note(UsageRecord { attempts: 9, ..UsageRecord::default() });
    till.loses_answers.store(true, Ordering::SeqCst);
    assert!(purses.inner.tell().await.is_err());
    let first = till.settled.lock().unwrap().values().next().unwrap().clone();
    till.loses_answers.store(false, Ordering::SeqCst);
    assert!(purses.inner.tell().await.unwrap());
    let second = till.settled.lock().unwrap().values().next().unwrap().clone();
    assert_eq!(first, second, "the same sequence");
    assert_eq!(till.usage.lock().unwrap().len(), 1);
    assert!(!purses.inner.tell().await.unwrap());
    clock.advance(Duration::from_mins(1));
    assert!(!purses.inner.tell().await.unwrap());
    assert!(purses.inner.purses().is_empty());
}

#[tokio::test]
async fn a_slice_whose_grant_got_lost_is_found_and_given_back() {
    let till = Script::with(100, 1);
    let (purses, clock) = purses(&till);
    till.loses_answers.store(true, Ordering::SeqCst);
    assert!(purses.reserve(&key(), &one(), Duration::ZERO).await.is_err());
    assert_eq!(till.left(), 99);
    till.loses_answers.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(31));
    purses.inner.look_for_lost_answers().await;
    assert!(purses.inner.tell().await.unwrap());
    assert_eq!(till.left(), 100);
}

#[tokio::test]
async fn nothing_begins_in_a_slice_of_older_rules() {
    let till = Script::with(100, 8);
    let (purses, clock) = purses(&till);
    purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap().end(&spent(), Source::Byok);
    purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap().end(&spent(), Source::Byok);
    let drawn = till.draws();
    clock.advance(Duration::from_millis(5));
    let as_of = clock.elapsed();
    let held = purses.reserve(&key(), &one(), as_of).await.unwrap();
    assert_eq!(till.draws(), drawn + 1);
    held.end(&spent(), Source::Byok);
    while purses.inner.tell().await.unwrap() {}
    clock.advance(Duration::from_secs(3));
    while purses.inner.tell().await.unwrap() {}
    assert_eq!(till.left(), 97);
}

#[tokio::test]
async fn a_slice_that_has_ended_admits_nothing_and_is_given_back() {
    let till = Script::with(100, 8);
    let (purses, clock) = purses(&till);
    let late = purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap();
    let lost = purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap();
    let drawn = till.draws();
    clock.advance(Duration::from_secs(295));
    purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap().end(&spent(), Source::Byok);
    assert_eq!(till.draws(), drawn + 1);
    drop(lost);
    late.end(&spent(), Source::Byok);
    clock.advance(Duration::from_secs(3));
    while purses.inner.tell().await.unwrap() {}
    // Whatever became of the lost one, it was a call.
    assert_eq!(till.left(), 97);
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_waits_leaves_a_slice_that_is_given_back() {
    let till = Script::with(100, 1);
    let (purses, clock) = purses(&till);
    let (key, need) = (key(), one());
    tokio::select! {
        biased;
        _ = purses.reserve(&key, &need, Duration::ZERO) => panic!("an answer at once"),
        () = std::future::ready(()) => {}
    }
    while till.left() == 100 {
        tokio::task::yield_now().await;
    }
    while purses.inner.all().first().unwrap().turn.try_lock().is_err() {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(3));
    while purses.inner.tell().await.unwrap() {}
    assert_eq!(till.left(), 100);
}

#[tokio::test]
async fn where_nothing_is_limited_nothing_is_held() {
    let till = Script::with(100, 1);
    till.is_unlimited.store(true, Ordering::SeqCst);
    let (purses, _) = purses(&till);
    for _ in 0..5 {
        let held = purses.reserve(&key(), &one(), Duration::ZERO).await.unwrap();
        assert_eq!(held.allowance_id(), None);
        held.end(&spent(), Source::Byok);
    }
    assert_eq!(till.draws(), 1);
}
