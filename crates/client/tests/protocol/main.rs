//! The client against a scripted broker: real TLS, real sessions, real seals.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod echo;
mod outage;
mod peer;
mod pki;
mod reports;
mod services;

use std::{sync::Arc, time::Duration};

use domain::{Clock, Dialect, Failure, ManualClock, Secret, SystemClock, VirtualKeyDigest};
use mtls::TrustDomains;
use strongroom_client::{
    Broker, ClientConfig, FailedAttempt, LeaseCache, LeaseCacheConfig, LeaseError, LeaseKey,
    OnStreamLoss, UnsealError, WatchState,
};
use strongroom_proto::v1::{Credential, RotationPlan, failed_attempt, revocation::Target};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Status};

use crate::{
    peer::{Peer, SECRET, refusal},
    pki::Pki,
};

struct World {
    peer: Peer,
    broker: Broker,
    cache: LeaseCache,
    clock: Arc<ManualClock>,
    _pki: Pki,
    _server: JoinSet<()>,
}

async fn world(on_stream_loss: OnStreamLoss) -> World {
    let pki = Pki::new();
    let (peer, address, server) = Peer::start(pki.identity("broker")).await;
    let config = config(&pki, address.to_string(), "broker");
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let broker = Broker::connect(&config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let settings = LeaseCacheConfig { on_stream_loss, ..LeaseCacheConfig::default() };
    let cache = LeaseCache::new(broker.clone(), settings, Arc::clone(&clock) as Arc<dyn Clock>);
    let world = World { peer, broker, cache, clock, _pki: pki, _server: server };
    world.until(|world| world.cache.watch_state() == WatchState::Live).await;
    world
}

fn config(pki: &Pki, broker: String, broker_name: &str) -> ClientConfig {
    ClientConfig {
        broker,
        tls: pki.identity("proxy").into(),
        trust_domains: TrustDomains::new(["test.internal"]).unwrap(),
        broker_id: format!("spiffe://test.internal/{broker_name}").parse().unwrap(),
        log_key: None,
        timeout: Duration::from_secs(5),
    }
}

fn key(digest: u8) -> LeaseKey {
    LeaseKey {
        virtual_key: "aaaaaaaaaaaaaaaa".parse().unwrap(),
        digest: VirtualKeyDigest::from_bytes([digest; 32]),
        dialect: Dialect::OpenAi,
        provider: None,
        model: "gpt-4o".into(),
    }
}

impl World {
    /// Waits for what another task brings about; fails the test when it does not come.
    #[track_caller]
    fn until(&self, holds: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let looking = async {
                let mut look = tokio::time::interval(Duration::from_millis(2));
                while !holds(self) {
                    look.tick().await;
                }
            };
            let came = timeout(Duration::from_secs(10), looking).await;
            assert!(came.is_ok(), "it did not come: {caller}");
        }
    }

    fn asked(&self) -> u32 {
        self.peer.script().asked
    }
}

fn tenant() -> Target {
    Target::Tenant("tenants/acme".into())
}

#[tokio::test]
async fn a_lease_opens_and_is_asked_for_once() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    assert_eq!(lease.unseal().unwrap().expose(), SECRET);
    assert_eq!(lease.base_url(), "https://api.openai.com/v1");
    assert_eq!(lease.header_name(), "authorization");
    assert_eq!(lease.model(), "gpt-4o");
    assert!(!format!("{lease:?}").contains("sk-live"));

    let again = world.cache.lease(&key(1)).await.unwrap();
    assert!(Arc::ptr_eq(&lease, &again));
    assert_eq!(world.asked(), 1);
    assert_eq!(world.peer.script().deadlines, [true]);
}

#[tokio::test]
async fn a_failure_is_reported_and_later_calls_use_what_was_lent_for_it() {
    let world = world(OnStreamLoss::Available).await;
    let first = world.cache.lease(&key(1)).await.unwrap();
    assert_eq!((first.credential_kind(), first.because()), ("api_key", "detected"));
    assert_eq!(first.settings(), [("organization".to_owned(), "org-1".to_owned())]);
    assert!(first.has_fallback());
    assert_eq!(first.address(), None);

    let failed = FailedAttempt {
        credential: first.credential().clone(),
        version: first.credential_version(),
        failure: Failure::RateLimited { retry_after: Some(Duration::from_secs(7)) },
        began: world.clock.elapsed(),
    };
    world.clock.advance(Duration::from_secs(2));
    let next = world.cache.fall_back(&key(1), &[failed]).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &next));
    let told = world.peer.script().failed.clone();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].credential, "tenants/acme/credentials/openai");
    assert_eq!(told[0].credential_version, first.credential_version());
    assert_eq!(told[0].failure(), failed_attempt::Failure::RateLimited);
    assert_eq!(told[0].retry_after.unwrap().seconds, 7);
    assert_eq!(told[0].began_ago.unwrap().seconds, 2);
    assert!(Arc::ptr_eq(&next, &world.cache.lease(&key(1)).await.unwrap()));

    let exhausted = refusal(Code::FailedPrecondition, "CREDENTIALS_EXHAUSTED");
    world.peer.script().refusals.push_back(exhausted);
    let refused = world.cache.fall_back(&key(1), &[]).await;
    assert!(matches!(refused, Err(LeaseError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn failures_that_nothing_stands_in_for_are_reported_without_a_call_for_each() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    let failed = |failure| FailedAttempt {
        credential: lease.credential().clone(),
        version: lease.credential_version(),
        failure,
        began: world.clock.elapsed(),
    };
    for _ in 0..100 {
        world.cache.report(&key(1), failed(Failure::TimedOut));
    }
    world.until(|world| !world.peer.script().reported.is_empty()).await;
    let told = world.peer.script().reported[0].clone();
    assert_eq!(told.virtual_key_id, "aaaaaaaaaaaaaaaa");
    assert_eq!(told.key_sha256, [1; 32].as_slice());
    assert_eq!(told.attempt.unwrap().failure(), failed_attempt::Failure::TimedOut);
    assert!(world.peer.script().reported.len() <= 8);
    // It says nothing of the lease; that the credential is no good does.
    assert!(Arc::ptr_eq(&lease, &world.cache.lease(&key(1)).await.unwrap()));
    world.cache.report(&key(1), failed(Failure::CredentialRefused));
    assert!(!Arc::ptr_eq(&lease, &world.cache.lease(&key(1)).await.unwrap()));
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn until_the_provider_wants_to_be_asked_again_the_answer_is_at_hand() {
    let world = world(OnStreamLoss::Available).await;
    world.peer.script().tamper = Some(|lease| lease.has_fallback = false);
    let lease = world.cache.lease(&key(1)).await.unwrap();
    let retry_after = Some(Duration::from_secs(7));
    let failed = FailedAttempt {
        credential: lease.credential().clone(),
        version: lease.credential_version(),
        failure: Failure::RateLimited { retry_after },
        began: world.clock.elapsed(),
    };
    world.cache.report(&key(1), failed);
    world.clock.advance(Duration::from_secs(2));
    let Err(LeaseError::Refused { reason, metadata, retry_after, .. }) =
        world.cache.lease(&key(1)).await
    else {
        panic!("it was lent")
    };
    assert_eq!((&*reason, &*metadata["failure"]), ("CREDENTIALS_EXHAUSTED", "rate_limited"));
    assert_eq!(retry_after, Some(Duration::from_secs(5)));
    world.clock.advance(Duration::from_secs(5));
    assert!(Arc::ptr_eq(&lease, &world.cache.lease(&key(1)).await.unwrap()));
    assert_eq!(world.asked(), 1);
    // Where another is listed, the next call asks for it instead of waiting.
    world.peer.script().tamper = None;
    let listed = world.cache.lease(&key(2)).await.unwrap();
    let failed = FailedAttempt {
        credential: listed.credential().clone(),
        version: listed.credential_version(),
        failure: Failure::RateLimited { retry_after: Some(Duration::from_secs(7)) },
        began: world.clock.elapsed(),
    };
    world.cache.report(&key(2), failed);
    world.cache.lease(&key(2)).await.unwrap();
    assert_eq!(world.asked(), 3);
}

#[tokio::test]
async fn the_whole_virtual_key_decides_not_its_id() {
    let world = world(OnStreamLoss::Available).await;
    world.cache.lease(&key(1)).await.unwrap();
    world.peer.script().refusals.push_back(refusal(Code::Unauthenticated, "VIRTUAL_KEY_REFUSED"));
    let refused = world.cache.lease(&key(2)).await;
    assert!(matches!(refused, Err(LeaseError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn many_callers_ask_once() {
    let world = world(OnStreamLoss::Available).await;
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let cache = world.cache.clone();
        callers.spawn(async move { cache.lease(&key(1)).await.unwrap().log_index() });
    }
    let indexes = callers.join_all().await;
    assert!(indexes.iter().all(|index| *index == indexes[0]));
    assert_eq!((world.asked(), world.peer.script().sessions_opened), (1, 1));
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_end_the_question_for_others() {
    let world = world(OnStreamLoss::Available).await;
    world.peer.state.answers.forget_permits(usize::MAX >> 4);
    let gone = timeout(Duration::from_millis(100), world.cache.lease(&key(1))).await;
    assert!(gone.is_err());
    world.until(|world| world.asked() == 1).await;

    world.peer.state.answers.add_permits(1);
    world.cache.lease(&key(1)).await.unwrap();
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn a_revocation_ends_a_lease_for_who_holds_it_too() {
    for target in [
        tenant(),
        Target::Credential("tenants/acme/credentials/openai".into()),
        Target::VirtualKey("tenants/acme/virtualKeys/aaaaaaaaaaaaaaaa".into()),
    ] {
        let world = world(OnStreamLoss::Available).await;
        let lease = world.cache.lease(&key(1)).await.unwrap();
        world.peer.revoke(target);
        world.until(|_| !lease.is_live()).await;
        assert_eq!(lease.unseal().unwrap_err(), UnsealError::Ended);

        // The next one was granted after the revocation, so it stands.
        let next = world.cache.lease(&key(1)).await.unwrap();
        assert!(next.is_live());
        assert_eq!(world.asked(), 2);
    }
}

#[tokio::test]
async fn one_revoked_lease_leaves_others_alone() {
    let world = world(OnStreamLoss::Available).await;
    let (one, other) =
        (world.cache.lease(&key(1)).await.unwrap(), world.cache.lease(&key(2)).await.unwrap());
    world.peer.revoke(Target::LeaseHash(one.lease_hash().to_vec().into()));
    world.until(|_| !one.is_live()).await;
    assert!(other.is_live());
}

#[tokio::test]
async fn a_grant_that_a_revocation_overtook_is_not_used() {
    let world = world(OnStreamLoss::Available).await;
    let witness = world.cache.lease(&key(1)).await.unwrap();
    world.peer.state.answers.forget_permits(usize::MAX >> 4);
    let cache = world.cache.clone();
    let mut caller = JoinSet::new();
    caller.spawn(async move { cache.lease(&key(2)).await.unwrap() });
    world.until(|world| world.asked() == 2).await;

    // Granted and on its way; the revocation is applied first, as the other lease shows.
    world.peer.revoke(tenant());
    let revoked_at = world.peer.script().revocations[0].log_index;
    world.until(|_| !witness.is_live()).await;
    world.peer.state.answers.add_permits(2);

    let lease = caller.join_next().await.unwrap().unwrap();
    assert!(lease.log_index() > revoked_at);
    assert_eq!(world.asked(), 3);
}

#[tokio::test]
async fn what_was_revoked_while_the_stream_was_lost_is_dropped_on_resuming() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    world.peer.cut_streams(Some(Status::unavailable("gone")));
    world.until(|world| world.cache.watch_state() == WatchState::Lost).await;
    world.peer.revoke(tenant());
    assert!(lease.is_live());

    world.peer.script().streams_refused = None;
    world.until(|_| !lease.is_live()).await;
    let starts = world.peer.script().stream_starts.clone();
    assert_eq!(starts[0], None);
    assert!(starts.last().unwrap().is_some(), "resumed where it was lost");
}

#[tokio::test]
async fn when_the_stream_cannot_resume_every_lease_is_dropped() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    world.peer.cut_streams(Some(Status::out_of_range("gone")));
    world.until(|_| !lease.is_live()).await;
    world.peer.script().streams_refused = None;
    world.until(|world| world.cache.watch_state() == WatchState::Live).await;
    assert!(world.cache.lease(&key(1)).await.unwrap().is_live());
}

#[tokio::test]
async fn strict_stops_five_seconds_after_the_stream_is_lost() {
    let world = world(OnStreamLoss::Strict).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    world.peer.cut_streams(Some(Status::unavailable("gone")));
    world.until(|world| world.cache.watch_state() == WatchState::Lost).await;
    assert!(lease.is_live());

    world.clock.advance(Duration::from_secs(5));
    assert_eq!(lease.unseal().unwrap_err(), UnsealError::Ended);
    let none = world.cache.lease(&key(1)).await;
    assert!(matches!(none, Err(LeaseError::Unavailable { .. })), "{none:?}");

    world.peer.script().streams_refused = None;
    world.until(|world| world.cache.watch_state() == WatchState::Live).await;
    assert!(lease.is_live(), "it was not revoked meanwhile");
}

#[tokio::test]
async fn available_uses_a_lease_to_its_end_and_no_longer() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    world.peer.cut_streams(Some(Status::unavailable("gone")));
    world.peer.script().sessions.clear();
    world.clock.advance(Duration::from_secs(20));
    assert!(lease.is_live());
    world.clock.advance(Duration::from_secs(39));
    assert!(!lease.is_live());
}

#[tokio::test]
async fn a_refusal_is_repeated_for_a_second_without_asking() {
    let world = world(OnStreamLoss::Available).await;
    for _ in 0..2 {
        let status = refusal(Code::Unauthenticated, "VIRTUAL_KEY_REFUSED");
        world.peer.script().refusals.push_back(status);
    }
    for _ in 0..20 {
        let Err(LeaseError::Refused { code, reason, .. }) = world.cache.lease(&key(1)).await else {
            panic!("not refused");
        };
        assert_eq!((code, &*reason), (Code::Unauthenticated, "VIRTUAL_KEY_REFUSED"));
    }
    assert_eq!(world.asked(), 1);
    world.clock.advance(Duration::from_secs(1));
    assert!(world.cache.lease(&key(1)).await.is_err());
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn an_outage_is_not_remembered() {
    let world = world(OnStreamLoss::Available).await;
    let status = refusal(Code::Unavailable, "STORE_UNAVAILABLE");
    world.peer.script().refusals.push_back(status);
    let none = world.cache.lease(&key(1)).await;
    assert!(matches!(none, Err(LeaseError::Unavailable { .. })), "{none:?}");
    world.cache.lease(&key(1)).await.unwrap();
}

#[tokio::test]
async fn a_forgotten_session_is_opened_again() {
    let world = world(OnStreamLoss::Available).await;
    let old = world.cache.lease(&key(1)).await.unwrap();
    world.peer.script().sessions.clear();
    let new = world.cache.lease(&key(2)).await.unwrap();
    assert_eq!(world.peer.script().sessions_opened, 2);
    for lease in [old, new] {
        assert_eq!(lease.unseal().unwrap().expose(), SECRET);
    }
}

#[tokio::test]
async fn a_changed_word_makes_the_secret_unreadable() {
    let world = world(OnStreamLoss::Available).await;
    let changes: [fn(&mut strongroom_proto::v1::Lease); 8] = [
        |lease| lease.base_url = "https://api.openai.com/v2".into(),
        |lease| lease.origins.push("https://evil.example".into()),
        |lease| lease.header_name = "x-api-key".into(),
        |lease| lease.header_prefix.clear(),
        |lease| lease.credential_version += 1,
        |lease| lease.ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 }),
        |lease| lease.model = "gpt-4o-mini".into(),
        |lease| lease.log_index += 1,
    ];
    for (digest, change) in (0..).zip(changes) {
        world.peer.script().tamper = Some(change);
        let lease = world.cache.lease(&key(digest)).await.unwrap();
        assert_eq!(lease.unseal().unwrap_err(), UnsealError::Broken, "change {digest}");
    }
}

#[tokio::test]
async fn a_base_url_outside_the_origins_is_no_lease() {
    let world = world(OnStreamLoss::Available).await;
    world.peer.script().tamper = Some(|lease| lease.base_url = "https://evil.example/v1".into());
    let refused = world.cache.lease(&key(1)).await;
    assert!(matches!(refused, Err(LeaseError::BadLease)), "{refused:?}");
}

#[tokio::test]
async fn a_lease_in_use_is_renewed_before_it_ends() {
    let world = world(OnStreamLoss::Available).await;
    let first = world.cache.lease(&key(1)).await.unwrap();
    world.clock.advance(Duration::from_secs(42));
    world.until(|world| world.peer.script().renewed == 1).await;
    let mut lease = world.cache.lease(&key(1)).await.unwrap();
    while lease.renewals() == 0 {
        tokio::task::yield_now().await;
        lease = world.cache.lease(&key(1)).await.unwrap();
    }
    assert_eq!(lease.unseal().unwrap().expose(), SECRET);
    assert_eq!(lease.lease_hash(), first.lease_hash());
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn a_refused_renewal_ends_the_lease() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    let status = refusal(Code::FailedPrecondition, "CREDENTIAL_IS_DISABLED");
    world.peer.script().refusals.push_back(status);
    world.clock.advance(Duration::from_secs(42));
    world.until(|_| !lease.is_live()).await;
    assert_eq!(world.peer.script().renewed, 1);
}

#[tokio::test]
async fn shutdown_gives_the_leases_back() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    world.cache.lease(&key(2)).await.unwrap();
    world.cache.shutdown().await;
    assert_eq!(world.peer.script().released, 2);
    assert!(!lease.is_live());
    let none = world.cache.lease(&key(1)).await;
    assert!(matches!(none, Err(LeaseError::Unavailable { .. })), "{none:?}");
}

#[tokio::test]
async fn a_secret_goes_in_sealed_and_arrives_whole() {
    let world = world(OnStreamLoss::Available).await;
    let spec = Credential { provider: "openai".into(), ..Credential::default() };
    let (parent, id) = ("acme".parse().unwrap(), "main".parse().unwrap());
    let secret = Secret::new(SECRET.to_vec());
    let made = world.broker.create_credential(&parent, &id, spec, &secret, "r-1").await.unwrap();
    // The broker restarts in between.
    world.peer.script().sessions.clear();
    let name = made.name.parse().unwrap();
    world.broker.rotate_credential(&name, &secret, None, "r-2").await.unwrap();

    let plan = RotationPlan { canary_percent: 7, ..RotationPlan::default() };
    let started =
        world.broker.start_rotation(&name, &secret, plan, None, "op-1", false).await.unwrap();
    assert_eq!(started.rotation.unwrap().plan, Some(plan));

    let stored = (made.name, SECRET.to_vec());
    assert_eq!(world.peer.script().stored, [stored.clone(), stored.clone(), stored]);
}

#[tokio::test]
async fn another_than_the_expected_broker_is_not_spoken_to() {
    let pki = Pki::new();
    let (peer, address, _server) = Peer::start(pki.identity("imposter")).await;
    let config = config(&pki, address.to_string(), "broker");
    let broker = Broker::connect(&config, Arc::new(SystemClock)).unwrap();
    let cache = LeaseCache::new(broker, LeaseCacheConfig::default(), Arc::new(SystemClock));
    let none = cache.lease(&key(1)).await;
    assert!(matches!(none, Err(LeaseError::Unavailable { .. })), "{none:?}");
    assert_eq!(peer.script().sessions_opened, 0);
}
