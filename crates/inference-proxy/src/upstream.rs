use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use domain::{CredentialName, Origin};
use egress::{Connector, EgressError, Exit};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};

use crate::{Loan, body::Frames, meters::Series};

/// Connections to providers, kept apart by credential: a connection that has carried one tenant's
/// secret never carries another's call, and ends when nobody holds a lease on it any more.
#[derive(Debug)]
pub(crate) struct Upstreams {
    exit: Arc<Exit>,
    idle: Duration,
    known: RwLock<HashMap<CredentialName, Vec<Arc<Upstream>>>>,
}

/// The connections of one credential to one origin.
pub(crate) struct Upstream {
    origin: Origin,
    pub(crate) client: Client<Connector, Frames>,
    pub(crate) series: Series,
    /// The lease that was last used here.
    loan: Mutex<Arc<dyn Loan>>,
}

impl Upstreams {
    pub(crate) fn new(exit: Arc<Exit>, idle: Duration) -> Self {
        Self { exit, idle, known: RwLock::default() }
    }

    /// The connections for a lease. Refused unless the lease's address is of one of its origins.
    pub(crate) fn for_loan(&self, loan: &Arc<dyn Loan>) -> Result<Arc<Upstream>, EgressError> {
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
        if let Some(upstream) = self.known(loan, origin) {
            upstream.note(loan);
            return Ok(upstream);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let list = known.entry(loan.credential().clone()).or_default();
        if let Some(upstream) = list.iter().find(|upstream| upstream.origin == *origin) {
            upstream.note(loan);
            return Ok(Arc::clone(upstream));
        }
        let upstream = Arc::new(self.open(loan, origin));
        list.push(Arc::clone(&upstream));
        Ok(upstream)
    }

    /// Closes the idle connections whose lease has ended: buffers of theirs may still hold what was
    /// last written to them.
    pub(crate) fn close_ended(&self) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, list| {
            list.retain(|upstream| upstream.is_live());
            !list.is_empty()
        });
    }

    fn known(&self, loan: &Arc<dyn Loan>, origin: &Origin) -> Option<Arc<Upstream>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(loan.credential())?.iter().find(|upstream| upstream.origin == *origin).cloned()
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
            loan: Mutex::new(Arc::clone(loan)),
        }
    }
}

impl Upstream {
    /// Remembers the lease that is used now, for it is what keeps the connections open.
    fn note(&self, loan: &Arc<dyn Loan>) {
        let mut last = self.loan.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&last, loan) {
            *last = Arc::clone(loan);
        }
    }

    fn is_live(&self) -> bool {
        self.loan.lock().unwrap_or_else(PoisonError::into_inner).is_live()
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
