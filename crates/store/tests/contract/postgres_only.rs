use std::{str::FromStr as _, sync::Arc};

use domain::{Period, Timestamp, Uid, Unit};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions,
};
use store::{BudgetStore as _, Change, PostgresStore, Store as _, StoreError};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    budgets::{budget, draw, granted as granted_allowance, requests},
    given::{append, at, changed, granted, key, pending, refusal, revoked, tenant},
    log::check_tree,
    place::{Place, server_url},
    proxy::{Cut, Proxy},
};

#[tokio::test]
async fn two_stores_interleave_without_gaps() {
    let Some(place) = Place::server().await else { return };
    let (one, other) = (place.open().await, place.open().await);
    assert_eq!(one.deployment(), other.deployment());
    let mut writers = JoinSet::new();
    for store in [&one, &other] {
        for _ in 0..4 {
            let store = Arc::clone(store);
            writers.spawn(async move {
                for _ in 0..25 {
                    append(&*store, vec![refusal("a"), refusal("b")]).await;
                }
            });
        }
    }
    writers.join_all().await;
    check_tree(&*one, 400).await;
    check_tree(&*other, 400).await;
}

#[tokio::test]
async fn a_change_wakes_the_other_brokers_and_a_grant_does_not() {
    let Some(database) = Database::new().await else { return };
    let store = PostgresStore::connect(&database.url, 2).await.unwrap();
    let other = PostgresStore::connect(&database.url, 2).await.unwrap();
    let mut wakeups = other.wakeups().unwrap();
    // It says that it listens.
    wakeups.changed().await.unwrap();
    wakeups.mark_unchanged();
    append(&store, vec![refusal("a"), granted("a", 1, at(1))]).await;
    append(&store, vec![revoked(1)]).await;
    wakeups.changed().await.unwrap();
    let woken = *wakeups.borrow_and_update();
    append(&store, vec![refusal("a")]).await;
    append(&store, vec![revoked(2), revoked(3)]).await;
    wakeups.changed().await.unwrap();
    assert_eq!(*wakeups.borrow_and_update(), woken + 1);
}

#[tokio::test]
async fn a_lost_listener_listens_again_and_says_that_it_missed_something() {
    let Some(database) = Database::new().await else { return };
    let store = PostgresStore::connect(&database.url, 2).await.unwrap();
    let mut wakeups = store.wakeups().unwrap();
    wakeups.wait_for(|count| *count == 1).await.unwrap();
    database.end_sessions().await;
    // One for the loss, and one because it listens again.
    wakeups.wait_for(|count| *count >= 3).await.unwrap();
    database.until_listening(1).await;
    wakeups.mark_unchanged();
    append(&store, vec![revoked(1)]).await;
    wakeups.changed().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn an_allowance_whose_commit_has_no_answer_is_reserved_once() {
    let Some((proxy, store)) = behind_proxy().await else { return };
    let total = budget(3, Period::Total, &[(Unit::Requests, 10)]);
    let budgets = [total.clone()];
    granted_allowance(&store, &draw(1, &budgets, requests(1), at(1))).await;
    for (number, cut) in [(2, Cut::AfterCommit), (3, Cut::BeforeCommit)] {
        proxy.cut(cut);
        granted_allowance(&store, &draw(number, &budgets, requests(1), at(1))).await;
        assert!(proxy.has_cut());
        let accounts = store.accounts(total.id, Timestamp::from_millis(0)).await.unwrap();
        assert_eq!(accounts[0].1.reserved, number);
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found() {
    let Some((proxy, store)) = behind_proxy().await else { return };
    append(&store, vec![refusal("a")]).await;
    proxy.cut(Cut::AfterCommit);
    assert_eq!(append(&store, vec![refusal("b"); 3]).await, [1, 2, 3]);
    assert!(proxy.has_cut());

    proxy.cut(Cut::AfterCommit);
    let acme = tenant(1, "acme");
    store
        .apply(&Change::CreateTenant(acme.clone(), vec![key(2, acme.uid, 1)]), &changed())
        .await
        .unwrap();
    assert!(proxy.has_cut());
    assert_eq!(store.tenant(&acme.id).await.unwrap(), Some(acme));
    check_tree(&store, 5).await;
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_unavailable() {
    let Some((proxy, store)) = behind_proxy().await else { return };
    append(&store, vec![refusal("a")]).await;
    proxy.cut(Cut::BeforeCommit);
    let refused = store.append(&[pending(refusal("b"))]).await;
    assert!(proxy.has_cut());
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    check_tree(&store, 1).await;
    assert_eq!(append(&store, vec![refusal("c")]).await, [1]);
}

#[tokio::test]
async fn a_connection_that_died_idle_is_replaced() {
    let Some(database) = Database::new().await else { return };
    let store = PostgresStore::connect(&database.url, 2).await.unwrap();
    append(&store, vec![refusal("a")]).await;
    database.end_sessions().await;
    assert_eq!(append(&store, vec![refusal("b")]).await, [1]);
    check_tree(&store, 2).await;
}

#[tokio::test]
async fn a_read_only_database_is_unavailable_and_records_nothing() {
    let Some(mut database) = Database::new().await else { return };
    let store = PostgresStore::connect(&database.url, 2).await.unwrap();
    append(&store, vec![refusal("a")]).await;
    let sql = format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name);
    database.admin.execute(AssertSqlSafe(sql)).await.unwrap();
    database.end_sessions().await;
    let refused = store.append(&[pending(refusal("b"))]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    check_tree(&store, 1).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let refused = PostgresStore::connect("postgres://nobody:secret@127.0.0.1:1/none", 2).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)));
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unavailable() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://nobody@{}/none", silent.local_addr().unwrap());
    let refused = PostgresStore::connect(&url, 2).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
}

pub(crate) async fn behind_proxy() -> Option<(Proxy, PostgresStore)> {
    let url = Place::server().await?.url();
    let options = PgConnectOptions::from_str(&url).unwrap();
    let server = format!("{}:{}", options.get_host(), options.get_port());
    let proxy = Proxy::start(server.clone(), url.clone()).await;
    let url = format!("{}&sslmode=disable", url.replace(&server, &proxy.address.to_string()));
    let store = PostgresStore::connect(&url, 2).await.unwrap();
    Some((proxy, store))
}

/// A whole database, for what cannot be done to a schema.
struct Database {
    admin: PgConnection,
    name: String,
    url: String,
}

impl Database {
    async fn new() -> Option<Self> {
        let url = server_url()?;
        let mut admin = PgConnection::connect(&url).await.unwrap();
        let name = format!("test_{}", Uid::random().unwrap());
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let (server, _) = url.rsplit_once('/').unwrap();
        Some(Self { admin, url: format!("{server}/{name}"), name })
    }

    /// Waits until so many sessions listen.
    async fn until_listening(&self, count: i64) {
        const SQL: &str = "\
            SELECT count(*) FROM pg_stat_activity \
            WHERE datname = $1 AND state = 'idle' AND query LIKE 'LISTEN%'";
        let mut admin = PgConnection::connect(&server_url().unwrap()).await.unwrap();
        loop {
            let found: i64 =
                sqlx::query_scalar(SQL).bind(&self.name).fetch_one(&mut admin).await.unwrap();
            if found >= count {
                return;
            }
        }
    }

    /// Ends every session of the database and waits until they are gone.
    async fn end_sessions(&self) {
        let mut admin = PgConnection::connect(&server_url().unwrap()).await.unwrap();
        sqlx::query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1",
        )
        .bind(&self.name)
        .execute(&mut admin)
        .await
        .unwrap();
    }
}
