use std::{
    fmt,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use egress::{Bounds, EgressError};
use exchange::Courier;
use http::{Request, Response};
use tokio::sync::{Notify, Semaphore};

type Script = dyn Fn(&Request<Bytes>) -> Result<Response<Bytes>, EgressError> + Send;

/// The world outside, as a test writes it down; out of reach until it does.
pub(crate) struct Scripted {
    script: Mutex<Box<Script>>,
    seen: Mutex<Vec<String>>,
    /// Requests wait here for a permit while it is there.
    gate: Mutex<Option<Arc<Semaphore>>>,
    asked: Notify,
}

impl Scripted {
    /// From now on each request takes a permit of what this gives before it is answered.
    pub(crate) fn hold(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.gate.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    /// Waits until somebody has asked for something.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// From now on everybody answers so.
    pub(crate) fn answer(&self, status: u16, body: &'static str) {
        self.answer_by(move |_| (status, body.to_owned()));
    }

    /// From now on they answer by what they are asked.
    pub(crate) fn answer_by(
        &self,
        script: impl Fn(&Request<Bytes>) -> (u16, String) + Send + 'static,
    ) {
        *self.script.lock().unwrap() = Box::new(move |request| {
            let (status, body) = script(request);
            Ok(Response::builder().status(status).body(Bytes::from(body)).unwrap())
        });
    }

    /// Nobody can be reached from now on.
    pub(crate) fn vanish(&self) {
        *self.script.lock().unwrap() = Box::new(|_| Err(EgressError::TimedOut));
    }

    /// Nobody may be called from now on: every name leads to a private address.
    pub(crate) fn block(&self) {
        *self.script.lock().unwrap() = Box::new(|_| Err(EgressError::BlockedAddress));
    }

    /// Method and address of each request so far, in order.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Default for Scripted {
    fn default() -> Self {
        let script: Box<Script> = Box::new(|_| Err(EgressError::TimedOut));
        let (seen, gate) = (Mutex::default(), Mutex::default());
        Self { script: Mutex::new(script), seen, gate, asked: Notify::new() }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl Courier for Scripted {
    async fn send(
        &self,
        request: Request<Bytes>,
        bounds: &Bounds<'_>,
    ) -> Result<Response<Bytes>, EgressError> {
        let url = request.uri().to_string();
        assert!(bounds.origins.iter().any(|origin| url.starts_with(origin.as_str())), "{url}");
        self.seen.lock().unwrap().push(format!("{} {url}", request.method()));
        self.asked.notify_one();
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        (self.script.lock().unwrap())(&request)
    }
}
