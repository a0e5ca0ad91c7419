//! What may be spent: reserved before anything is lent, settled once, and given up in time.

use std::time::Duration;

use audit::{Kind, Reason, Record, revocation};
use domain::{Dialect, VirtualKey};
use store::Store as _;
use strongroom_proto::v1::{self, revocation::Target as Ended};
use testkit::{Fault, Operation};
use tonic::Code;

use super::{Ask, Fixture, Target, ask, caller, check};
use crate::{
    allowances::Wish,
    caller::Caller,
    people::Called,
    refused::{Refused, Why},
};

const ACME: &str = "tenants/acme";

struct Spending {
    fixture: Fixture,
    key: VirtualKey,
}

impl Spending {
    /// With a key that nothing limits yet.
    async fn new() -> Self {
        Self::with(v1::VirtualKey::default()).await
    }

    async fn with(terms: v1::VirtualKey) -> Self {
        let fixture = Fixture::new().await;
        let key = VirtualKey::generate().unwrap();
        let request = v1::CreateVirtualKeyRequest {
            parent: ACME.to_owned(),
            virtual_key_id: key.id().to_string(),
            virtual_key: Some(terms),
            key_sha256: key.digest().as_bytes().to_vec().into(),
        };
        let admin = caller("VirtualKeys/CreateVirtualKey");
        fixture.core.create_virtual_key(&admin, request).await.unwrap();
        Self { fixture, key }
    }

    /// So many requests, once, for the key.
    async fn allow(&self, requests: u64) -> v1::Budget {
        let budget = v1::Budget {
            virtual_key: self.key.id().to_string(),
            period: Some(v1::Period {
                length: v1::period::Length::Total.into(),
                ..v1::Period::default()
            }),
            limits: vec![v1::Limit { unit: v1::Unit::Requests.into(), cap: requests }],
            alerts: vec![50],
            ..v1::Budget::default()
        };
        let request = v1::CreateBudgetRequest {
            parent: ACME.to_owned(),
            budget_id: "once".to_owned(),
            budget: Some(budget),
            request_id: "r-1".to_owned(),
        };
        let admin = caller("Budgets/CreateBudget");
        self.fixture.core.create_budget(&admin, request).await.unwrap()
    }

    async fn lend(&self, allowance: Option<Wish>) -> Result<v1::Lease, Refused> {
        let target = Target::VirtualKey {
            id: self.key.id().clone(),
            digest: self.key.digest(),
            model: "gpt-4o".to_owned(),
            provider: String::new(),
        };
        let ask = Ask { target, dialect: Dialect::OpenAi, allowance, ..ask() };
        self.fixture.core.lend(&self.fixture.caller, &self.fixture.session, ask, None).await
    }

    fn draw(&self, number: u8, requests: u64) -> v1::DrawAllowanceRequest {
        v1::DrawAllowanceRequest {
            session_id: self.fixture.session.session.id().to_vec().into(),
            virtual_key_id: self.key.id().to_string(),
            key_sha256: self.key.digest().as_bytes().to_vec().into(),
            allowance: Some(asked(number, requests)),
        }
    }

    async fn settle(&self, by: &Caller, number: u8, covered: u64, returned: u64) -> Vec<String> {
        let amounts = |requests| Some(v1::Amounts { requests, ..v1::Amounts::default() });
        let settlement = v1::Settlement {
            allowance_id: vec![number; 16].into(),
            sequence: 1,
            covered: amounts(covered),
            returned: amounts(returned),
            spent: Some(v1::Spent { requests: covered, ..v1::Spent::default() }),
            managed: Some(v1::Spent { requests: covered / 2, ..v1::Spent::default() }),
        };
        let keys = sealing::ClientKeys::generate().unwrap();
        // A session of its own: what drew the allowance may be gone.
        let core = &self.fixture.core;
        let (session, _) = core.sessions.establish(by, &keys.public_key()).unwrap();
        let request = v1::SettleUsageRequest {
            session_id: core.sessions.keep(session).session.id().to_vec().into(),
            usage: vec![],
            settlements: vec![settlement],
        };
        let answer = core.settle_usage(by, &request).await.unwrap();
        answer.not_accepted.into_iter().map(|it| it.reason).collect()
    }

    /// Spent, reserved and unknown.
    async fn standing(&self) -> (u64, u64, u64) {
        let account = self.account().await;
        (account.spent, account.reserved, account.unknown)
    }

    async fn account(&self) -> v1::Account {
        let request = v1::ListBudgetsRequest { parent: ACME.to_owned(), ..Default::default() };
        let admin = caller("Budgets/ListBudgets");
        let listed = self.fixture.core.list_budgets(&admin, &request).await.unwrap();
        listed.budgets[0].accounts[0]
    }

    async fn records(&self, kind: Kind) -> Vec<Record> {
        let entries = self.fixture.store.records(0, 10_000, None).await.unwrap();
        let records = entries.iter().map(|entry| entry.record().unwrap());
        records.filter(|record| record.kind() == kind).collect()
    }
}

fn asked(number: u8, requests: u64) -> v1::AllowanceRequest {
    let need = v1::Amounts { requests, ..v1::Amounts::default() };
    v1::AllowanceRequest {
        allowance_id: vec![number; 16].into(),
        need: Some(need),
        wanted: Some(need),
    }
}

fn wish(number: u8, requests: u64) -> Wish {
    Wish::of(&asked(number, requests)).unwrap()
}

#[tokio::test]
async fn a_call_that_its_budget_has_no_room_for_is_not_lent() {
    let spending = Spending::new().await;
    spending.allow(3).await;
    let allowance = spending.lend(Some(wish(1, 2))).await.unwrap().allowance.unwrap();
    assert_eq!(allowance.granted.unwrap().requests, 2);
    assert_eq!(allowance.limited, [i32::from(v1::Unit::Requests)]);
    let limit = &allowance.limits[0];
    assert_eq!((limit.cap, limit.left, limit.is_rate), (3, 1, false));
    assert_eq!(limit.budget, "tenants/acme/budgets/once");

    let refused = spending.lend(Some(wish(2, 2))).await;
    check(refused, Code::ResourceExhausted, Reason::BudgetExhausted);
    assert_eq!(spending.records(Kind::LeaseGranted).await.len(), 1);
    assert_eq!(spending.standing().await, (0, 2, 0));
    assert!(spending.lend(Some(wish(3, 1))).await.is_ok());
    // A lost answer is asked for again, and spends nothing more.
    assert!(spending.lend(Some(wish(3, 1))).await.is_ok());
    assert_eq!(spending.standing().await, (0, 3, 0));
}

#[tokio::test]
async fn a_limited_key_is_not_lent_for_without_saying_what_the_call_may_come_to() {
    let spending = Spending::new().await;
    assert!(spending.lend(None).await.unwrap().allowance.is_none());
    let free = spending.lend(Some(wish(1, 9))).await.unwrap().allowance.unwrap();
    assert_eq!((free.limited, free.granted.unwrap().requests), (vec![], 9));
    spending.allow(3).await;
    check(spending.lend(None).await, Code::InvalidArgument, Reason::InvalidField);
}

#[tokio::test]
async fn a_lease_that_is_not_recorded_spends_nothing() {
    let spending = Spending::new().await;
    spending.allow(3).await;
    spending.fixture.store.fail_once(Operation::Append, Fault::Before);
    check(spending.lend(Some(wish(1, 3))).await, Code::Unavailable, Reason::LogUnavailable);
    // What is asked for next is done after what was undone.
    assert!(spending.lend(Some(wish(2, 3))).await.is_ok());
    assert_eq!(spending.standing().await, (0, 3, 0));
}

#[tokio::test]
async fn without_the_store_of_budgets_only_what_is_limited_stops() {
    let spending = Spending::new().await;
    spending.fixture.store.fail(Operation::Budget, Fault::Before);
    assert!(spending.lend(Some(wish(1, 1))).await.is_ok());
    spending.allow(3).await;
    check(spending.lend(Some(wish(2, 1))).await, Code::Unavailable, Reason::StoreUnavailable);
    spending.fixture.store.heal();
    assert!(spending.lend(Some(wish(2, 1))).await.is_ok());
}

#[tokio::test]
async fn only_the_identity_that_drew_an_allowance_settles_it() {
    let spending = Spending::new().await;
    spending.allow(5).await;
    let core = &spending.fixture.core;
    let drawn = core.draw_allowance(&spending.fixture.caller, &spending.draw(1, 4)).await.unwrap();
    assert_eq!(drawn.granted.unwrap().requests, 4);
    assert_eq!(spending.records(Kind::AllowanceDrawn).await.len(), 1);

    let id = "spiffe://a.b/w/other".parse().unwrap();
    let other = Caller::new(id, Called::ById, [1; 32], "Leases/SettleUsage", None);
    assert_eq!(spending.settle(&other, 1, 3, 1).await, ["NO_SUCH_ALLOWANCE"]);
    let own = caller("Leases/SettleUsage");
    assert_eq!(spending.settle(&own, 1, 3, 2).await, ["SETTLEMENT_CONTRADICTS"]);
    assert_eq!(spending.settle(&own, 1, 3, 1).await, [""; 0]);
    assert_eq!(spending.settle(&own, 1, 3, 1).await, [""; 0]);
    assert_eq!(spending.standing().await, (3, 0, 0));
    // Its end is on record once, and so is the alert.
    for _ in 0..2 {
        core.sweep(None).await.unwrap();
    }
    assert_eq!(spending.records(Kind::AllowanceSettled).await[0].spent.unwrap().requests, 3);
    let alerts = spending.records(Kind::BudgetAlert).await;
    assert_eq!((alerts.len(), alerts[0].percent, alerts[0].budget.as_str()), (1, 50, "once"));
}

#[tokio::test]
async fn what_a_dead_holder_kept_counts_until_somebody_says_what_it_came_to() {
    let spending = Spending::new().await;
    spending.allow(5).await;
    let core = &spending.fixture.core;
    core.draw_allowance(&spending.fixture.caller, &spending.draw(1, 4)).await.unwrap();
    let now = spending.fixture.store.now().await.unwrap();
    core.sweep(Some(now + Duration::from_secs(290))).await.unwrap();
    assert_eq!(spending.standing().await, (0, 4, 0));
    core.sweep(Some(now + Duration::from_secs(310))).await.unwrap();
    assert_eq!(spending.standing().await, (0, 0, 4));
    assert_eq!(spending.records(Kind::AllowanceExpired).await[0].amounts.unwrap().requests, 4);
    check(spending.lend(Some(wish(2, 2))).await, Code::ResourceExhausted, Reason::BudgetExhausted);

    let admin = caller("Budgets/ListUnknownAllowances");
    let request =
        v1::ListUnknownAllowancesRequest { parent: ACME.to_owned(), ..Default::default() };
    let listed = core.list_unknown_allowances(&admin, &request).await.unwrap().allowances;
    assert_eq!((listed.len(), listed[0].rest.unwrap().requests), (1, 4));
    assert_eq!(listed[0].holder, "spiffe://a.b/w/service");
    let spent = Some(v1::Spent { requests: 1, ..v1::Spent::default() });
    let allowance_id = listed[0].allowance_id.clone();
    let request = v1::ReconcileAllowancesRequest {
        parent: ACME.to_owned(),
        found: vec![v1::Found { allowance_id, spent, managed: spent }],
    };
    let admin = caller("Budgets/ReconcileAllowances");
    let refused = core.reconcile_allowances(&admin, &request).await.unwrap().not_accepted;
    assert!(refused.is_empty() && admin.is_on_record());
    assert_eq!(spending.standing().await, (1, 0, 0));
    assert_eq!(spending.account().await.managed, 1);
    let record = &spending.records(Kind::AllowanceReconciled).await[0];
    assert_eq!(record.actor, "spiffe://a.b/w/service");
}

#[tokio::test]
async fn managed_spend_is_visible_apart() {
    let spending = Spending::new().await;
    spending.allow(9).await;
    spending.lend(Some(wish(1, 4))).await.unwrap();
    assert_eq!(spending.settle(&caller("Leases/SettleUsage"), 1, 3, 1).await, [""; 0]);
    let account = spending.account().await;
    assert_eq!((account.spent, account.managed, account.would_refuse), (3, 1, None));
}

#[tokio::test]
async fn a_shadow_lends_and_says_what_a_hard_budget_would_have_refused() {
    let spending = Spending::new().await;
    let made = spending.allow(3).await;
    let core = &spending.fixture.core;
    let shadow = v1::Budget { mode: v1::budget::Mode::Shadow.into(), ..made };
    let request = v1::UpdateBudgetRequest { budget: Some(shadow) };
    core.update_budget(&caller("Budgets/UpdateBudget"), request).await.unwrap();
    spending.lend(Some(wish(1, 3))).await.unwrap();
    core.sweep(None).await.unwrap();
    assert_eq!(spending.records(Kind::BudgetWouldRefuse).await, []);
    for number in [2, 3] {
        spending.lend(Some(wish(number, 2))).await.unwrap();
        let own = caller("Leases/SettleUsage");
        assert_eq!(spending.settle(&own, number, 2, 0).await, [""; 0]);
    }
    let expected = v1::WouldRefuse { allowances: 2, calls: 4, spent: 4, spent_millionths: 0 };
    assert_eq!(spending.account().await.would_refuse, Some(expected));
    // Once, not for each call.
    for _ in 0..2 {
        core.sweep(None).await.unwrap();
    }
    let told = spending.records(Kind::BudgetWouldRefuse).await;
    assert_eq!(
        (told.len(), told[0].budget.as_str(), told[0].unit()),
        (1, "once", v1::Unit::Requests)
    );
}

#[tokio::test]
async fn a_key_is_used_no_faster_than_it_may_be() {
    let terms = v1::VirtualKey { requests_per_minute: 2, ..v1::VirtualKey::default() };
    let spending = Spending::with(terms).await;
    let allowance = spending.lend(Some(wish(1, 2))).await.unwrap().allowance.unwrap();
    assert!(allowance.limits[0].is_rate);
    let own = caller("Leases/SettleUsage");
    assert_eq!(spending.settle(&own, 1, 2, 0).await, [""; 0]);
    let why = spending.lend(Some(wish(2, 1))).await.unwrap_err().why;
    let Why::LimitReached(limit) = why else { panic!("{why:?}") };
    assert!(limit.budget.is_none());
    let wait = limit.retry_after.unwrap();
    assert!(wait > Duration::from_secs(50), "{wait:?}");
}

#[tokio::test]
async fn a_budget_that_changes_ends_the_leases_of_whose_it_is() {
    let spending = Spending::new().await;
    let made = spending.allow(3).await;
    let mut changed = v1::Budget { limits: vec![], ..made.clone() };
    let core = &spending.fixture.core;
    let admin = || caller("Budgets/UpdateBudget");
    let request = |budget: &v1::Budget| v1::UpdateBudgetRequest { budget: Some(budget.clone()) };
    let refused = core.update_budget(&admin(), request(&changed)).await.unwrap_err();
    assert_eq!(refused.why.reason(), Reason::InvalidField);
    changed.limits = vec![v1::Limit { unit: v1::Unit::Requests.into(), cap: 1 }];
    let updated = core.update_budget(&admin(), request(&changed)).await.unwrap();
    assert_eq!((updated.limits[0].cap, updated.accounts[0].cap), (1, 1));
    let refused = core.update_budget(&admin(), request(&changed)).await.unwrap_err();
    assert_eq!(refused.why.reason(), Reason::EtagMismatch);
    check(spending.lend(Some(wish(1, 2))).await, Code::ResourceExhausted, Reason::BudgetExhausted);

    let name = made.name.clone();
    let request = v1::DeleteBudgetRequest { name, etag: String::new() };
    core.delete_budget(&admin(), &request).await.unwrap();
    assert!(spending.lend(None).await.is_ok());
    // The same name again is another budget.
    assert_eq!(spending.allow(9).await.accounts[0].spent, 0);
    let expected = Ended::VirtualKey(format!("{ACME}/virtualKeys/{}", spending.key.id()));
    for kind in [Kind::BudgetCreated, Kind::BudgetUpdated, Kind::BudgetDeleted] {
        let record = spending.records(kind).await.remove(0);
        assert_eq!(revocation(&record).unwrap().target, Some(expected.clone()), "{kind:?}");
    }
}
