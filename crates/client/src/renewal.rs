use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    sync::{Arc, Weak},
    time::Duration,
};

use strongroom_proto::v1::RenewLeaseRequest;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Status;

use crate::{
    ClientError, HeldLease, LeaseError, LeaseKey, Problem, cache::Inner, deadline::Moment,
    error::RETRY_AFTER,
};

/// When a lease is to be renewed. It does not keep the lease alive.
#[derive(Debug)]
pub(crate) struct Due {
    at: Duration,
    key: LeaseKey,
    lease: Weak<HeldLease>,
}

impl Due {
    /// Between half and 70 % of the lease's time, so that a fleet's leases do not come at once.
    pub(crate) fn first(key: LeaseKey, lease: &Arc<HeldLease>) -> Self {
        let at = lease.deadline().at_percent(50 + random_below(21));
        Self { at, key, lease: Arc::downgrade(lease) }
    }

    fn again(key: LeaseKey, lease: &Arc<HeldLease>, at: Duration) -> Self {
        Self { at, key, lease: Arc::downgrade(lease) }
    }
}

/// The earliest is the greatest, as a heap wants it.
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Due {}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

/// Renews what is due, for as long as it is polled.
pub(crate) async fn renew_when_due(inner: Arc<Inner>, mut scheduled: mpsc::UnboundedReceiver<Due>) {
    let mut queue = BinaryHeap::<Due>::new();
    let mut renewing = JoinSet::new();
    loop {
        let now = inner.clock.elapsed();
        while renewing.len() < RENEWING_AT_ONCE
            && let Some(due) = take_due(&mut queue, now)
        {
            renewing.spawn(renew(Arc::clone(&inner), due));
        }
        let wait = queue.peek().map_or(LONGEST_WAIT, |due| due.at.saturating_sub(now));
        tokio::select! {
            due = scheduled.recv() => match due {
                Some(due) => queue.push(due),
                None => return,
            },
            Some(_) = renewing.join_next() => {}
            // Short, because the clock it is held against may not be the one that sleeping counts by.
            () = sleep(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)) => {}
        }
    }
}

fn take_due(queue: &mut BinaryHeap<Due>, now: Duration) -> Option<Due> {
    if queue.peek()?.at <= now { queue.pop() } else { None }
}

async fn renew(inner: Arc<Inner>, due: Due) {
    let Some(lease) = due.lease.upgrade().filter(|lease| lease.is_live()) else { return };
    // What nobody used since it was last renewed is left to end.
    if !lease.was_used() || !inner.holds(&due.key, &lease) {
        return;
    }
    let epoch = inner.ring().epoch();
    let next = match inner.ask_to_renew(&lease).await {
        Ok(renewed) => {
            let renewed = Arc::new(renewed);
            if !renewed.is_live() || inner.publish(&due.key, &renewed, epoch) {
                Next::Done
            } else {
                Next::Anew
            }
        }
        Err(error) => Next::after(&error),
    };
    inner.go_on(due.key, &lease, next).await;
}

/// What follows the broker's answer to a renewal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Done,
    /// The lease cannot be renewed, but stands: get another in its place.
    Anew,
    /// The lease is over: drop it, and get another.
    DropAndAnew,
    /// The policy of now says no: drop it.
    Drop,
    /// Nothing was decided: try again while there is time.
    Later,
}

impl Next {
    fn after(error: &ClientError) -> Self {
        let ClientError::Call(status) = error else { return Self::Anew };
        match &*Problem::from_status(status).reason {
            "NO_SUCH_SESSION" => Self::Anew,
            "NO_SUCH_LEASE" | "LEASE_ENDED" => Self::DropAndAnew,
            _ if LeaseError::from(&**status).is_decision() => Self::Drop,
            _ => Self::Later,
        }
    }
}

impl Inner {
    async fn ask_to_renew(&self, lease: &HeldLease) -> Result<HeldLease, ClientError> {
        let session = Arc::clone(lease.session());
        let request = RenewLeaseRequest {
            session_id: session.keys.id().to_vec().into(),
            lease_id: lease.id().as_bytes().to_vec().into(),
            ttl: None,
            checkpoint: self.broker.checkpoints().note(),
        };
        let sent = Moment::now(&*self.clock);
        let most = self.broker.timeout().saturating_mul(2);
        let answer = timeout(most, async { self.broker.leases().renew_lease(request).await })
            .await
            .map_err(|_| Status::deadline_exceeded("the broker did not answer"))??
            .into_inner();
        self.broker.checkpoints().see(&answer.checkpoint);
        let (vitals, clock) = (Arc::clone(&self.vitals), Arc::clone(&self.clock));
        let renewed = HeldLease::accept(answer, session, sent, vitals, clock);
        Ok(renewed.map_err(ClientError::BadAnswer)?.limited_as(lease))
    }

    async fn go_on(&self, key: LeaseKey, lease: &Arc<HeldLease>, next: Next) {
        if next == Next::Done {
            self.meters.renewals.increment(1);
            return;
        }
        self.meters.renewals_failed.increment(1);
        if matches!(next, Next::Drop | Next::DropAndAnew) {
            lease.drop_now();
            if self.holds(&key, lease) {
                self.leases.invalidate(&key);
            }
        }
        let again = match next {
            Next::Done | Next::Drop => false,
            Next::Later => true,
            Next::Anew | Next::DropAndAnew => match self.acquire_published(&key, &[]).await {
                Ok(_) => false,
                Err(error) if error.is_decision() => {
                    lease.drop_now();
                    false
                }
                Err(_) => lease.is_live(),
            },
        };
        if again {
            let at = self.clock.elapsed().saturating_add(RETRY_AFTER);
            // The receiver ends only with the cache.
            let _ = self.due.send(Due::again(key, lease, at));
        }
    }

    /// Whether this very lease is the one that callers get.
    fn holds(&self, key: &LeaseKey, lease: &Arc<HeldLease>) -> bool {
        self.leases.get(key).is_some_and(|held| Arc::ptr_eq(&held, lease))
    }
}

/// A number below `end`; zero when the operating system has no random bytes, which only costs
/// spreading.
pub(crate) fn random_below(end: u32) -> u32 {
    getrandom::u32().unwrap_or(0).checked_rem(end).unwrap_or(0)
}

const RENEWING_AT_ONCE: usize = 64;
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use domain::{Dialect, VirtualKeyDigest};
    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn due(at: u64) -> Due {
        let key = LeaseKey {
            virtual_key: "aaaaaaaaaaaaaaaa".parse().unwrap(),
            digest: VirtualKeyDigest::from_bytes([0; 32]),
            dialect: Dialect::OpenAi,
            provider: None,
            model: String::new(),
        };
        Due { at: Duration::from_secs(at), key, lease: Weak::new() }
    }

    #[test]
    fn the_earliest_is_taken_first_and_nothing_before_its_time() {
        let mut queue = BinaryHeap::from([due(30), due(10), due(20)]);
        let mut take =
            |now| take_due(&mut queue, Duration::from_secs(now)).map(|due| due.at.as_secs());
        assert_eq!(take(9), None);
        assert_eq!(take(20), Some(10));
        assert_eq!(take(20), Some(20));
        assert_eq!(take(20), None);
        assert_eq!(take(30), Some(30));
        assert_eq!(take(40), None);
    }

    #[track_caller]
    fn check(code: Code, reason: &str, next: Next) {
        let details =
            ErrorDetails::with_error_info(reason, "strongroom.dev", HashMap::<_, _>::new());
        let status = Status::with_error_details(code, "words", details);
        assert_eq!(Next::after(&status.into()), next, "{reason}");
    }

    #[test]
    fn a_no_ends_the_lease_and_an_outage_does_not() {
        check(Code::FailedPrecondition, "NO_SUCH_SESSION", Next::Anew);
        check(Code::NotFound, "NO_SUCH_LEASE", Next::DropAndAnew);
        check(Code::FailedPrecondition, "LEASE_ENDED", Next::DropAndAnew);
        check(Code::PermissionDenied, "NOT_PERMITTED", Next::Drop);
        check(Code::Unauthenticated, "VIRTUAL_KEY_REFUSED", Next::Drop);
        check(Code::FailedPrecondition, "CREDENTIAL_IS_DISABLED", Next::Drop);
        check(Code::Unavailable, "LOG_UNAVAILABLE", Next::Later);
        check(Code::DeadlineExceeded, "DEADLINE_PASSED", Next::Later);
        check(Code::Internal, "INTERNAL", Next::Later);
    }
}
