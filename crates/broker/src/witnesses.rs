use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use audit::{
    AddCheckpoint, Checkpoint, Kind, Note, ProofPlan, Reason, Record, VerifierKey, WitnessKey,
};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use store::Tree;
use tokio::{
    sync::{Mutex, watch},
    time::{self, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::WitnessConfig,
    core::Core,
    witnesses::transport::{Client, client},
};

mod transport;

/// A witness of this log, <https://c2sp.org/tlog-witness>, as the broker that signs sees it. Nothing
/// waits for it: what it cosigns is published when it comes.
pub(crate) struct Remote {
    key: WitnessKey,
    uri: Uri,
    client: Client,
    /// The size that it cosigned last, as far as is known.
    known: u64,
    state: State,
}

/// The newest checkpoint with the cosignatures that have come.
pub(crate) type Published = Arc<Mutex<Option<(u64, Note)>>>;

/// What was told of a witness last, so that it is told once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Cosigns,
    Unreachable,
    Refuses(Reason),
}

/// How a checkpoint was not cosigned.
enum Failure {
    /// Not reached, or not understood. It is tried again.
    Unreachable(String),
    /// It has seen a log that this one does not continue, or more of it than there is.
    Refused(Reason, &'static str),
    /// This checkpoint is no longer the newest.
    Overtaken,
}

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// When a checkpoint that was not cosigned is handed in again, if no newer one comes before.
const RETRY: Duration = Duration::from_secs(10);

/// No answer is longer: some signature lines.
const LONGEST: usize = 64 << 10;

impl Remote {
    pub(crate) fn open(config: &WitnessConfig) -> anyhow::Result<Self> {
        let key: WitnessKey = config.key.parse().with_context(|| {
            format!("[[log.witnesses]]: `{}` is not the key of a witness", config.key)
        })?;
        let url = config.url.as_str().trim_end_matches('/');
        if !config.url.username().is_empty() || config.url.query().is_some() {
            bail!("[[log.witnesses]]: `{url}` is to have neither a user nor a query");
        }
        let uri = format!("{url}/add-checkpoint").parse().context("[[log.witnesses]]: the url")?;
        let client = client(config).with_context(|| format!("[[log.witnesses]]: {url}"))?;
        Ok(Self { key, uri, client, known: 0, state: State::Cosigns })
    }

    /// Hands in each newest checkpoint until `stop`.
    pub(crate) async fn follow(
        mut self,
        core: Arc<Core>,
        mut newest: watch::Receiver<Option<String>>,
        published: Published,
        stop: CancellationToken,
    ) {
        let mut again = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = newest.changed() => if changed.is_err() { return },
                () = time::sleep(RETRY), if again => {}
            }
            let Some(note) = newest.borrow_and_update().clone() else { continue };
            let handed_in = tokio::select! {
                () = stop.cancelled() => return,
                handed_in = self.hand_in(&core, &note, &published) => handed_in,
            };
            again = handed_in.is_err();
            self.tell(&core, handed_in).await;
        }
    }

    async fn hand_in(
        &mut self,
        core: &Core,
        text: &str,
        published: &Published,
    ) -> Result<u64, Failure> {
        let malformed = |_| Failure::Unreachable("the own checkpoint is malformed".to_owned());
        let key: VerifierKey = core.verifier_key.parse().map_err(malformed)?;
        let checkpoint = Checkpoint::verify(text, &key)
            .map_err(|error| Failure::Unreachable(error.to_string()))?;
        let size = checkpoint.size;
        let lines = self.ask(core, size, text).await?;
        let mut published = published.lock().await;
        let at_hand = published.take().filter(|(at, _)| *at >= size);
        let (at, mut note) = match at_hand {
            Some(at_hand) => at_hand,
            None => (size, Note::parse(text).map_err(|e| Failure::Unreachable(e.to_string()))?),
        };
        let fits = at == size;
        let added = if fits { note.add_cosignature(&lines, &self.key) } else { Ok(()) };
        let encoded = note.encode();
        *published = Some((at, note));
        added.map_err(|error| Failure::Unreachable(format!("its answer: {error}")))?;
        if fits {
            let kept = core.store.put_checkpoint(size, &encoded).await;
            kept.map_err(|error| Failure::Unreachable(error.to_string()))?;
        }
        self.known = size;
        Ok(size)
    }

    /// Asks for a cosignature; a second time when the witness has seen another size than was thought.
    async fn ask(&mut self, core: &Core, size: u64, note: &str) -> Result<String, Failure> {
        for attempt in 0..2 {
            if self.known > size {
                let seen = std::mem::take(&mut self.known);
                return Err(if core.log.size() < seen {
                    Failure::Refused(Reason::LogBehindCheckpoint, "it has seen a larger log")
                } else {
                    Failure::Overtaken
                });
            }
            let failed = |error: String| Failure::Unreachable(error);
            let plan = ProofPlan::consistency(self.known, size)
                .map_err(|error| failed(error.to_string()))?;
            let proof = Tree::of(&*core.store).prove(&plan).await;
            let proof = proof.map_err(|error| failed(format!("proving: {error}")))?;
            let request = AddCheckpoint { old_size: self.known, proof, note: note.to_owned() };
            let (status, size_line, body) = timeout(PATIENCE, self.send(&request))
                .await
                .map_err(|_| failed("it does not answer".to_owned()))?
                .map_err(|error| failed(format!("{error:#}")))?;
            match (status, size_line) {
                (StatusCode::OK, _) => return Ok(body),
                (StatusCode::CONFLICT, Some(seen)) if attempt == 0 && seen != self.known => {
                    self.known = seen;
                }
                (StatusCode::CONFLICT, _) => {
                    return Err(Failure::Refused(Reason::LogForked, "it has seen another history"));
                }
                (StatusCode::UNPROCESSABLE_ENTITY, _) => {
                    let why = "this log does not continue the one that it has seen";
                    return Err(Failure::Refused(Reason::LogForked, why));
                }
                (status, _) => return Err(failed(format!("it answered {status}"))),
            }
        }
        Err(Failure::Overtaken)
    }

    /// Sends a request; gives the status, the size if the answer names one, and the answer.
    async fn send(
        &self,
        request: &AddCheckpoint,
    ) -> anyhow::Result<(StatusCode, Option<u64>, String)> {
        let body = Full::new(Bytes::from(request.encode()));
        let request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(body)?;
        let response = self.client.request(request).await?;
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE);
        let names_size = kind.is_some_and(|kind| kind == "text/x.tlog.size");
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("its answer: {error}"))?.to_bytes();
        let body = String::from_utf8(body.into())?;
        let size = body.trim_end().parse().ok().filter(|_| names_size);
        Ok((status, size, body))
    }

    /// Metrics each time; a line in the log, and a record of what speaks against this log, once.
    async fn tell(&mut self, core: &Core, handed_in: Result<u64, Failure>) {
        let name = self.key.name().to_owned();
        let (outcome, state, why) = match handed_in {
            Ok(size) => {
                metrics::gauge!("strongroom_witnessed_records", "witness" => name.clone())
                    .set(crate::signer::metric(size));
                ("cosigned", State::Cosigns, String::new())
            }
            Err(Failure::Overtaken) => return,
            Err(Failure::Unreachable(why)) => ("unreachable", State::Unreachable, why),
            Err(Failure::Refused(reason, why)) => {
                ("refused", State::Refuses(reason), why.to_owned())
            }
        };
        metrics::counter!(
            "strongroom_witness_submissions_total", "witness" => name.clone(), "outcome" => outcome
        )
        .increment(1);
        if self.state == state {
            return;
        }
        self.state = state;
        match state {
            State::Cosigns => tracing::info!(witness = name, "the witness cosigns again"),
            State::Unreachable => {
                tracing::warn!(witness = name, why, "a checkpoint was not cosigned");
            }
            State::Refuses(reason) => {
                tracing::error!(witness = name, why, "THE WITNESS REFUSES THIS LOG");
                let found = Record {
                    kind: Kind::Finding.into(),
                    reason: reason.into(),
                    ..Record::default()
                };
                if let Err(why) = core.log.record(found).await {
                    tracing::error!(%why, "the witness's refusal is not on record");
                }
            }
        }
    }
}
