use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use domain::{CredentialName, Origin, Secret};
use egress::{Connector, EgressError, Exit};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};

use crate::{Loan, body::Frames, meters::Series};

/// Connections to providers, kept apart by credential and by what its secret is: a connection that has
/// carried one secret never carries another, whatever names are used again.
#[derive(Debug)]
pub(crate) struct Upstreams {
    exit: Arc<Exit>,
    idle: Duration,
    known: RwLock<HashMap<Whose, Vec<Arc<Upstream>>>>,
    /// Secrets are told apart by hashes under this process's own random key.
    hasher: RandomState,
}

#[derive(Debug, Eq, Hash, PartialEq)]
struct Whose {
    credential: CredentialName,
    secret: u64,
}

/// The connections of one credential to one origin.
pub(crate) struct Upstream {
    origin: Origin,
    pub(crate) client: Client<Connector, Frames>,
    pub(crate) series: Series,
    /// The leases that were used here, the last one at the end.
    loans: Mutex<Vec<Arc<dyn Loan>>>,
}

impl Upstreams {
    pub(crate) fn new(exit: Arc<Exit>, idle: Duration) -> Self {
        Self { exit, idle, known: RwLock::default(), hasher: RandomState::new() }
    }

    /// The connections for a lease and its secret. Refused unless the lease's address is of one of its
    /// origins.
    pub(crate) fn for_loan(
        &self,
        loan: &Arc<dyn Loan>,
        secret: &Secret,
    ) -> Result<Arc<Upstream>, EgressError> {
        let base = loan.base_uri();
        let (Some(scheme), Some(authority)) = (base.scheme_str(), base.authority()) else {
            return Err(EgressError::NoHost);
        };
        let origin = loan.origins().iter().find(|origin| {
            let named = origin.as_str().strip_prefix(scheme);
            named.and_then(|rest| rest.strip_prefix("://"))
                == Some(without_default_port(scheme, authority.as_str()))
        });
        let origin = origin.ok_or(EgressError::ForeignOrigin)?;
        let secret = self.hasher.hash_one(secret.expose());
        let whose = Whose { credential: loan.credential().clone(), secret };
        if let Some(upstream) = self.known(&whose, origin) {
            upstream.note(loan);
            return Ok(upstream);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let list = known.entry(whose).or_default();
        if let Some(upstream) = list.iter().find(|upstream| upstream.origin == *origin) {
            upstream.note(loan);
            return Ok(Arc::clone(upstream));
        }
        let upstream = Arc::new(self.open(loan, origin));
        list.push(Arc::clone(&upstream));
        Ok(upstream)
    }

    /// Gives up the connections that any lease was used on which has ended: buffers of theirs may still
    /// hold what was written to them. No new call goes out on them; idle ones close now, others when
    /// the calls in hand on them are over. Whoever holds another lease goes on with a new connection.
    pub(crate) fn close_ended(&self) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, list| {
            list.retain(|upstream| upstream.is_live());
            !list.is_empty()
        });
    }

    fn known(&self, whose: &Whose, origin: &Origin) -> Option<Arc<Upstream>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(whose)?.iter().find(|upstream| upstream.origin == *origin).cloned()
    }

    fn open(&self, loan: &Arc<dyn Loan>, origin: &Origin) -> Upstream {
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.idle)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_initial_stream_window_size(1 << 20)
            .http2_initial_connection_window_size(4 << 20)
            .http2_max_header_list_size(64 << 10)
            .build(Connector::new(Arc::clone(&self.exit), origin.clone()));
        Upstream {
            origin: origin.clone(),
            client,
            series: Series::new(loan.provider(), loan.source()),
            loans: Mutex::new(vec![Arc::clone(loan)]),
        }
    }
}

impl Upstream {
    /// Remembers the lease that is used now, for the connections end with it.
    fn note(&self, loan: &Arc<dyn Loan>) {
        let mut loans = self.loans.lock().unwrap_or_else(PoisonError::into_inner);
        if loans.last().is_some_and(|last| Arc::ptr_eq(last, loan)) {
            return;
        }
        match loans.iter().position(|known| Arc::ptr_eq(known, loan)) {
            Some(at) => {
                let last = loans.len() - 1;
                loans.swap(at, last);
            }
            None => loans.push(Arc::clone(loan)),
        }
    }

    fn is_live(&self) -> bool {
        let loans = self.loans.lock().unwrap_or_else(PoisonError::into_inner);
        loans.iter().all(|loan| loan.is_live())
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("origin", &self.origin).finish_non_exhaustive()
    }
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = if scheme == "http" { ":80" } else { ":443" };
    authority.strip_suffix(port).unwrap_or(authority)
}
