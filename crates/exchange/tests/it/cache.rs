use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{Clock, ManualClock, Secret, Uid};
use exchange::{Courier, CredentialVersion, Exchange, ExchangeError, Minter, Order};
use providers::CredentialKind;
use serde_json::json;
use tokio::task::JoinSet;

use crate::world::{self, Scripted, clock, order, text};

const ENTRA: &str = "resource=r tenant_id=t.example client_id=11111111-2222-3333-4444-555555555555";

struct World {
    exchange: Arc<Exchange>,
    courier: Arc<Scripted>,
    clock: Arc<ManualClock>,
    /// What the token service answers with.
    status: Arc<AtomicU16>,
}

/// A token service that numbers its tokens, each good for an hour.
fn world() -> World {
    let status = Arc::new(AtomicU16::new(200));
    let (made, answers) = (AtomicU64::new(0), Arc::clone(&status));
    let courier = Scripted::new(move |request| {
        if request.method() == http::Method::DELETE {
            return world::json(204, "");
        }
        let number = made.fetch_add(1, Ordering::SeqCst) + 1;
        let body = json!({
            "access_token": format!("token-{number}"), "token_type": "Bearer", "expires_in": 3600,
            "key": format!("key-{number}"), "data": { "hash": format!("hash-{number}") },
            "error": "invalid_client",
        });
        world::json(answers.load(Ordering::SeqCst), body)
    });
    let clock = clock();
    let minter = Minter::new(
        Arc::clone(&courier) as Arc<dyn Courier>,
        Arc::clone(&clock) as Arc<dyn Clock>,
        None,
    );
    let exchange = Arc::new(Exchange::new(Arc::new(minter), Arc::clone(&clock) as Arc<dyn Clock>));
    World { exchange, courier, clock, status }
}

fn version(tenant: &str, version: u64) -> CredentialVersion {
    let first = tenant.as_bytes()[0];
    CredentialVersion { credential: Uid::from_bytes([first; 16]), version }
}

fn entra() -> Order {
    order("azure", CredentialKind::EntraClient, ENTRA, "a-client-secret")
}

impl World {
    async fn token(&self, of: &CredentialVersion) -> Result<String, ExchangeError> {
        self.exchange.token(of, entra()).await.map(|token| text(&token).to_owned())
    }

    /// Lets an exchange that nobody waits for come to its end.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_token_is_made_once_for_all_who_ask_at_once() {
    let world = world();
    let gate = world.courier.hold();
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let exchange = Arc::clone(&world.exchange);
        asking.spawn(async move { exchange.token(&version("acme", 1), entra()).await });
    }
    world.courier.arrived.notified().await;
    world.settle().await;
    world.courier.let_go();
    gate.notify_one();
    while let Some(token) = asking.join_next().await {
        assert_eq!(text(&token.unwrap().unwrap()), "token-1");
    }
    assert_eq!(world.token(&version("acme", 1)).await.unwrap(), "token-1");
    assert_eq!(world.courier.seen().len(), 1);
}

#[tokio::test]
async fn who_stops_waiting_does_not_end_the_exchange_for_others() {
    let world = world();
    let gate = world.courier.hold();
    let mut first = JoinSet::new();
    let exchange = Arc::clone(&world.exchange);
    first.spawn(async move { exchange.token(&version("acme", 1), entra()).await });
    world.courier.arrived.notified().await;
    first.shutdown().await;
    world.courier.let_go();
    gate.notify_one();
    assert_eq!(world.token(&version("acme", 1)).await.unwrap(), "token-1");
    assert_eq!(world.courier.seen().len(), 1);
}

#[tokio::test]
async fn a_slow_token_service_delays_nobody_elses_calls() {
    let world = world();
    let _gate = world.courier.hold();
    let mut slow = JoinSet::new();
    let exchange = Arc::clone(&world.exchange);
    slow.spawn(async move { exchange.token(&version("slow", 1), entra()).await });
    world.courier.arrived.notified().await;
    world.courier.let_go();
    // The first still waits; others are served, and so is a newer version of the same credential.
    assert_eq!(world.token(&version("acme", 1)).await.unwrap(), "token-1");
    assert_eq!(world.token(&version("slow", 2)).await.unwrap(), "token-2");
    assert!(slow.try_join_next().is_none());
}

#[tokio::test]
async fn callers_of_one_credential_wait_in_bounded_number() {
    let world = world();
    let _gate = world.courier.hold();
    let mut waiting = JoinSet::new();
    for _ in 0..64 {
        let exchange = Arc::clone(&world.exchange);
        waiting.spawn(async move { exchange.token(&version("acme", 1), entra()).await });
    }
    world.courier.arrived.notified().await;
    world.settle().await;
    let error = world.token(&version("acme", 1)).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Busy) && error.is_passing());
}

#[tokio::test]
async fn a_token_service_that_hangs_for_many_keeps_nobody_from_another() {
    let world = world();
    let _gate = world.courier.hold();
    let mut hanging = JoinSet::new();
    // Reading the catalogue for each of so many would take most of the time.
    let again = |first: &Order| Order {
        minting: first.minting.clone(),
        settings: first.settings.clone(),
        secret: Secret::new(b"a-secret".to_vec()),
        lifetime: first.lifetime,
    };
    let first = entra();
    for credential in 0..20u8 {
        for _ in 0..100 {
            let (exchange, order) = (Arc::clone(&world.exchange), again(&first));
            let credential = Uid::from_bytes([credential; 16]);
            let of = CredentialVersion { credential, version: 1 };
            hanging.spawn(async move { exchange.token(&of, order).await.map(drop) });
        }
    }
    while world.courier.seen().len() < 20 {
        world.courier.arrived.notified().await;
    }
    world.settle().await;
    // The control: there are more than may wait, and those were told so at once.
    let mut refused = 0;
    while let Some(told) = hanging.try_join_next() {
        assert!(matches!(told.unwrap(), Err(ExchangeError::Busy)));
        refused += 1;
    }
    assert_eq!(refused, 2000 - 20 - 128);

    world.courier.let_go();
    let admin = order("openrouter", CredentialKind::AdminKey, "", "sk-or-v1-admin");
    let mut others = JoinSet::new();
    for _ in 0..50 {
        let (exchange, order) = (Arc::clone(&world.exchange), again(&admin));
        others.spawn(async move { exchange.token(&version("acme", 1), order).await });
    }
    while let Some(token) = others.join_next().await {
        assert_eq!(text(&token.unwrap().unwrap()), "key-1");
    }
    // Nor from the same one with another credential, once it answers that.
    assert_eq!(world.token(&version("globex", 1)).await.unwrap(), "token-2");
    assert!(hanging.try_join_next().is_none());
}

#[tokio::test]
async fn the_next_token_is_made_before_the_last_ends_and_nobody_waits_for_it() {
    let world = world();
    let of = version("acme", 1);
    assert_eq!(world.token(&of).await.unwrap(), "token-1");
    world.clock.advance(Duration::from_mins(39));
    assert_eq!(world.token(&of).await.unwrap(), "token-1");
    world.settle().await;
    assert_eq!(world.courier.seen().len(), 1);
    // With a quarter left at the latest, the next one is asked for and the old one still given out.
    world.clock.advance(Duration::from_mins(6));
    let gate = world.courier.hold();
    assert_eq!(world.token(&of).await.unwrap(), "token-1");
    assert_eq!(world.token(&of).await.unwrap(), "token-1");
    world.courier.arrived.notified().await;
    world.courier.let_go();
    gate.notify_one();
    world.settle().await;
    assert_eq!(world.token(&of).await.unwrap(), "token-2");
    assert_eq!(world.courier.seen().len(), 2);
}

#[tokio::test]
async fn while_the_token_service_is_down_what_there_is_serves_to_its_end() {
    let world = world();
    let of = version("acme", 1);
    assert_eq!(world.token(&of).await.unwrap(), "token-1");
    world.status.store(503, Ordering::SeqCst);
    world.clock.advance(Duration::from_mins(50));
    assert_eq!(world.token(&of).await.unwrap(), "token-1");
    world.settle().await;
    assert_eq!(world.courier.seen().len(), 2);
    // It failed a moment ago, so it is left alone.
    assert_eq!(world.token(&of).await.unwrap(), "token-1");
    world.settle().await;
    assert_eq!(world.courier.seen().len(), 2);
    world.clock.advance(Duration::from_mins(10));
    let error = world.token(&of).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Trouble { status: 503 }));
    world.status.store(200, Ordering::SeqCst);
    world.clock.advance(error.retry_after());
    assert_eq!(world.token(&of).await.unwrap(), "token-4");
}

#[tokio::test]
async fn a_refusal_is_held_for_a_while_and_for_its_version_only() {
    let world = world();
    world.status.store(401, Ordering::SeqCst);
    for _ in 0..10 {
        let error = world.token(&version("acme", 1)).await.unwrap_err();
        assert_eq!(error.verdict(), providers::Verdict::Invalid);
    }
    assert_eq!(world.courier.seen().len(), 1);
    world.status.store(200, Ordering::SeqCst);
    assert_eq!(world.token(&version("acme", 2)).await.unwrap(), "token-2");
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(world.token(&version("acme", 1)).await.unwrap(), "token-3");
}

#[tokio::test]
async fn a_token_is_never_lent_past_its_end() {
    let world = world();
    let token = world.exchange.token(&version("acme", 1), entra()).await.unwrap();
    assert_eq!(
        token.lendable_for(&*world.clock),
        Duration::from_hours(1) - Duration::from_secs(30)
    );
    world.clock.advance(Duration::from_mins(59));
    assert_eq!(token.lendable_for(&*world.clock), Duration::from_secs(30));
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(token.lendable_for(&*world.clock), Duration::ZERO);
}

#[tokio::test]
async fn what_is_forgotten_is_made_anew_and_what_was_under_way_is_ended() {
    let world = world();
    let of = version("acme", 1);
    assert_eq!(world.token(&of).await.unwrap(), "token-1");
    assert_eq!(world.token(&version("other", 1)).await.unwrap(), "token-2");
    assert_eq!(world.exchange.forget(of.credential, |_| true), []);
    assert_eq!(world.token(&version("other", 1)).await.unwrap(), "token-2");

    let _gate = world.courier.hold();
    let mut waiting = JoinSet::new();
    let (exchange, asked) = (Arc::clone(&world.exchange), of.clone());
    waiting.spawn(async move { exchange.token(&asked, entra()).await });
    while world.courier.seen().len() < 3 {
        world.courier.arrived.notified().await;
    }
    world.exchange.forget(of.credential, |_| true);
    let error = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ExchangeError::Stopped));
    world.courier.let_go();
    assert_eq!(world.token(&of).await.unwrap(), "token-3");
}

#[tokio::test]
async fn nothing_goes_on_when_the_exchange_is_dropped() {
    let world = world();
    let _gate = world.courier.hold();
    let mut waiting = JoinSet::new();
    let exchange = Arc::clone(&world.exchange);
    waiting.spawn(async move { exchange.token(&version("acme", 1), entra()).await.map(drop) });
    world.courier.arrived.notified().await;
    waiting.shutdown().await;
    // The task that is under way holds the courier; when it is gone, only this test does.
    drop(world.exchange);
    let courier = world.courier;
    while Arc::strong_count(&courier) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_made_key_is_deleted_once_no_lease_can_stand_on_it() {
    let world = world();
    let of = version("acme", 1);
    let admin = || order("openrouter", CredentialKind::AdminKey, "", "sk-or-v1-admin");
    let ask = async || text(&world.exchange.token(&of, admin()).await.unwrap()).to_owned();
    assert_eq!(ask().await, "key-1");
    world.clock.advance(Duration::from_mins(46));
    assert_eq!(ask().await, "key-1");
    world.settle().await;
    assert_eq!(ask().await, "key-2");
    world.clock.advance(Duration::from_mins(4));
    assert_eq!(ask().await, "key-2");
    world.settle().await;
    assert_eq!(world.courier.seen().len(), 2);
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(ask().await, "key-2");
    world.settle().await;
    assert_eq!(world.courier.seen()[2], "DELETE https://openrouter.ai/api/v1/keys/hash-1");

    // What is forgotten is told, so that it can be deleted at once.
    let leftovers = world.exchange.forget(of.credential, |_| true);
    assert_eq!(leftovers.iter().map(|left| &*left.key_id).collect::<Vec<_>>(), ["hash-2"]);
    world.exchange.discard(leftovers, admin());
    world.settle().await;
    assert_eq!(world.courier.seen()[3], "DELETE https://openrouter.ai/api/v1/keys/hash-2");
}

#[tokio::test]
async fn what_has_ended_is_swept_away() {
    let world = world();
    let token = world.exchange.token(&version("acme", 1), entra()).await.unwrap();
    world.exchange.sweep();
    assert_eq!(Arc::strong_count(&token), 2);
    world.clock.advance(Duration::from_hours(1));
    world.exchange.sweep();
    assert_eq!(Arc::strong_count(&token), 1);
}
