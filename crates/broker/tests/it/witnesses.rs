use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use audit::{Checkpoint, CosignerKey, Kind, Note, Reason};
use domain::SystemClock;
use setup::Layout;
use strongroom_proto::v1;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinSet};
use witness::{Desk, Listener, serve, write_private};

use crate::harness::{Running, layout};

/// A witness of one log, on the auditors' machine as it were.
struct Auditor {
    folder: TempDir,
    key: CosignerKey,
    address: SocketAddr,
    desk: Arc<Desk>,
    _stop: oneshot::Sender<()>,
    _serving: JoinSet<()>,
}

impl Auditor {
    async fn of(log: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = CosignerKey::generate("witness.internal").unwrap();
        let file = folder.path().join("witness.key");
        write_private(&file, &key.to_text()).unwrap();
        let state = folder.path().join("state");
        let desk = Desk::open(&file, &[log], &state, Arc::new(SystemClock)).unwrap();
        let desk = Arc::new(desk);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(any, None).await.unwrap();
        let address = listener.address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut serving = JoinSet::new();
        serving.spawn(serve(Arc::clone(&desk), listener, async {
            // A test that has failed drops its end, which ends the witness too.
            let _ = stopped.await;
        }));
        Self { folder, key, address, desk, _stop: stop, _serving: serving }
    }

    fn config(&self) -> String {
        let (address, key) = (self.address, self.key.witness());
        format!("\n[[log.witnesses]]\nurl = \"http://{address}\"\nkey = \"{key}\"\n")
    }

    /// Both notes of each conflict.
    fn evidence(&self) -> Vec<(String, String)> {
        let folder = self.folder.path().join("state/evidence");
        let names = self.desk.evidence().unwrap();
        let read = |name: &str, file| fs::read_to_string(folder.join(name).join(file)).unwrap();
        names.iter().map(|name| (read(name, "cosigned"), read(name, "refused"))).collect()
    }
}

async fn newest(running: &Running) -> Option<(Note, Checkpoint)> {
    let newest = running.admin.audit().get_checkpoint(v1::GetCheckpointRequest {}).await.ok()?;
    let text = newest.into_inner().checkpoint;
    let checkpoint = Checkpoint::verify(&text, &running.verifier).unwrap();
    Some((Note::parse(&text).unwrap(), checkpoint))
}

/// The first checkpoint that the witness has cosigned and that is of this size at least.
async fn cosigned(running: &Running, auditor: &Auditor, size: u64) -> Checkpoint {
    loop {
        if let Some((note, checkpoint)) = newest(running).await
            && checkpoint.size >= size
            && note.cosigned(auditor.key.witness()).is_ok()
        {
            return checkpoint;
        }
        tokio::task::yield_now().await;
    }
}

async fn grow(running: &Running, records: usize) {
    for _ in 0..records {
        let page = v1::ListRecordsRequest { page_size: 1, ..Default::default() };
        running.proxy.audit().list_records(page).await.unwrap_err();
    }
}

async fn start(folder: TempDir, layout: Layout, more: &str) -> Running {
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    if !text.contains(more) {
        fs::write(&layout.broker_config, text + more).unwrap();
    }
    Running::start_in(folder, layout).await
}

fn clone(folder: &Path, trust_domain: &str) -> (TempDir, Layout) {
    let copy = tempfile::tempdir().unwrap();
    copy_all(folder, copy.path());
    let layout = Layout::at(&copy.path().join("strongroom"), trust_domain);
    (copy, layout)
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_all(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn what_the_broker_signs_is_cosigned_and_published() {
    let (folder, layout) = layout();
    let auditor = Auditor::of(&layout.log_verifier).await;
    let running = start(folder, layout, &auditor.config()).await;
    let first = cosigned(&running, &auditor, 1).await;
    grow(&running, 3).await;
    let second = cosigned(&running, &auditor, first.size + 3).await;
    assert_ne!(first.root, second.root);
    assert!(auditor.evidence().is_empty());

    // The next broker does not know how far the witness is, and learns it.
    let (_, folder, layout) = running.end_and_keep().await;
    let running = start(folder, layout, &auditor.config()).await;
    cosigned(&running, &auditor, second.size + 1).await;
    assert!(auditor.evidence().is_empty());
    let records = running.end().await;
    assert!(!records.iter().any(|record| record.kind() == Kind::Finding));
}

#[tokio::test]
async fn a_second_history_is_refused_at_once_with_both_notes_kept() {
    let (folder, layout) = layout();
    let auditor = Auditor::of(&layout.log_verifier).await;
    let running = start(folder, layout, &auditor.config()).await;
    cosigned(&running, &auditor, 1).await;
    let (_, folder, layout) = running.end_and_keep().await;
    // Whoever has the database and the signing key has all that it takes.
    let (copy, copied) = clone(folder.path(), &layout.trust_domain);

    let honest = start(folder, layout, &auditor.config()).await;
    grow(&honest, 2).await;
    let size = honest.admin.audit().list_records(v1::ListRecordsRequest::default()).await;
    let seen = cosigned(&honest, &auditor, size.unwrap().into_inner().tree_size).await;
    assert!(auditor.evidence().is_empty());

    let forked = start(copy, copied, &auditor.config()).await;
    grow(&forked, 9).await;
    while auditor.evidence().is_empty() {
        if let Some((note, checkpoint)) = newest(&forked).await {
            // What it had cosigned before the histories parted is all that it cosigned.
            assert!(checkpoint.size < seen.size || note.cosigned(auditor.key.witness()).is_err());
        }
        tokio::task::yield_now().await;
    }
    for (kept, refused) in auditor.evidence() {
        let kept = Checkpoint::verify(&kept, &honest.verifier).unwrap();
        let refused = Checkpoint::verify(&refused, &honest.verifier).unwrap();
        assert!(kept.size >= seen.size && refused.size >= kept.size);
        assert_ne!((kept.size, kept.root), (refused.size, refused.root));
    }
    // The honest one goes on; the other one says in its own log what was found.
    grow(&honest, 1).await;
    cosigned(&honest, &auditor, seen.size + 1).await;
    let finding = Reason::LogForked;
    let found = async |running: &Running| {
        let page = v1::ListRecordsRequest { page_size: 4096, ..Default::default() };
        let page = running.admin.audit().list_records(page).await.unwrap().into_inner();
        let records = page.entries.iter().map(|it| audit::decode_record(&it.body).unwrap());
        records.filter(|it| it.kind() == Kind::Finding && it.reason() == finding).count()
    };
    while found(&forked).await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((found(&forked).await, found(&honest).await), (1, 0));
    let (note, _) = newest(&forked).await.unwrap();
    assert!(note.cosigned(auditor.key.witness()).is_err());
    honest.end().await;
    forked.end().await;
}

#[tokio::test]
async fn a_witness_that_is_down_delays_nothing() {
    let (folder, layout) = layout();
    let gone = Auditor::of(&layout.log_verifier).await;
    let config = gone.config();
    drop(gone);
    let auditor = Auditor::of(&layout.log_verifier).await;
    let running = start(folder, layout, &(config + &auditor.config())).await;
    let first = cosigned(&running, &auditor, 1).await;
    grow(&running, 2).await;
    cosigned(&running, &auditor, first.size + 2).await;
    let records = running.end().await;
    assert!(!records.iter().any(|record| record.kind() == Kind::Finding));
}

#[test]
fn a_witness_that_cannot_be_meant_stops_the_start() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let key = CosignerKey::generate("w").unwrap().witness().to_string();
    let log = audit::SignerKey::generate("w").unwrap().verifier().to_string();
    for (url, key, says) in [
        ("http://witness.example", &*key, "https://"),
        ("https://witness.example", &*log, "not the key of a witness"),
        ("https://witness.example/?a=b", &*key, "query"),
    ] {
        let (_folder, layout) = layout();
        let text = fs::read_to_string(&layout.broker_config).unwrap();
        let more = format!("\n[[log.witnesses]]\nurl = \"{url}\"\nkey = \"{key}\"\n");
        fs::write(&layout.broker_config, text + &more).unwrap();
        let (config, sha256) = broker::Config::load(&layout.broker_config).unwrap();
        let Err(error) = runtime.block_on(broker::Broker::open(config, sha256)) else {
            panic!("{url} is usable");
        };
        assert!(format!("{error:#}").contains(says), "{error:#}");
    }
}
