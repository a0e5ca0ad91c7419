//! Alerts of budgets reach their receivers: one by the sample in `docs/webhooks.md`, which is left out where
//! no `TEST_PYTHON` is set, and one of our own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};
use strongroom_proto::v1;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    task::{JoinSet, yield_now},
};

use crate::{
    harness::{Running, layout},
    lending::with_key,
};

/// A receiver in Python, by its documentation alone.
struct Receiver {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: String,
}

impl Receiver {
    /// Refuses so many calls before it takes one.
    #[expect(
        clippy::disallowed_methods,
        reason = "whose Python to test with is up to the test run"
    )]
    async fn start(secret: &Path, refuse: u32) -> Option<Self> {
        let python = std::env::var("TEST_PYTHON").ok()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/webhook.py");
        let mut command = Command::new(python);
        command.arg(script).arg(secret).args(["--refuse", &refuse.to_string()]);
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().unwrap();
        Some(Self { _child: child, lines, port })
    }

    async fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap()
    }
}

/// A receiver that says of each call whether it took it.
struct Plain {
    port: u16,
    takes: Arc<AtomicBool>,
    calls: mpsc::UnboundedReceiver<(bool, Value)>,
    _serving: JoinSet<()>,
}

impl Plain {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let takes = Arc::new(AtomicBool::new(false));
        let (tell, calls) = mpsc::unbounded_channel();
        let (asked, mut serving) = (Arc::clone(&takes), JoinSet::new());
        serving.spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let Some(event) = body(&mut connection).await else { continue };
                let takes = asked.load(Ordering::SeqCst);
                let status = if takes { "204 No Content" } else { "503 Service Unavailable" };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                let _ = connection.write_all(head.as_bytes()).await;
                let _ = tell.send((takes, serde_json::from_slice(&event).unwrap()));
            }
        });
        Self { port, takes, calls, _serving: serving }
    }
}

/// The body of the one request on a connection, if it is whole.
async fn body(connection: &mut TcpStream) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        if connection.read_buf(&mut all).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&all).to_lowercase();
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.split("content-length: ").nth(1)?.lines().next()?;
        if rest.len() >= length.parse().ok()? {
            return Some(all.split_off(head.len() + 4));
        }
    }
}

/// A webhook of everybody's alerts, from the first on.
fn alerts(name: &str, port: u16, secret: &Path) -> String {
    format!(
        "[[log.webhooks]]\nname = \"{name}\"\nfrom = \"start\"\nkinds = [\"BUDGET_ALERT\"]\n\
         url = \"http://127.0.0.1:{port}/\"\nsecrets = [\"{}\"]\n",
        secret.display()
    )
}

const LOOPBACK: &str =
    "\n[egress]\nallow = [\"127.0.0.0/8\"]\ndanger_plain_http_to_loopback = true\n";

fn secret(folder: &Path, name: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("{name}-0123456789abcdef0123456789abcdef\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    path
}

/// Spends two of two requests with a key that has a budget.
async fn spend(running: &Running) {
    let request = v1::CreateTenantRequest { tenant_id: "acme".into(), ..Default::default() };
    running.admin.tenants().create_tenant(request).await.unwrap();
    let key = with_key(running, &"acme".parse().unwrap(), &[]).await;
    let length = v1::period::Length::Total.into();
    let budget = v1::Budget {
        limits: vec![v1::Limit { unit: v1::Unit::Requests.into(), cap: 2 }],
        period: Some(v1::Period { length, ..Default::default() }),
        alerts: vec![80],
        ..Default::default()
    };
    let request = v1::CreateBudgetRequest {
        parent: "tenants/acme".into(),
        budget_id: "once".into(),
        budget: Some(budget),
        request_id: "r-1".into(),
    };
    running.admin.budgets().create_budget(request).await.unwrap();
    let public_key = sealing::ClientKeys::generate().unwrap().public_key().to_vec().into();
    let opened =
        running.proxy.leases().open_session(v1::OpenSessionRequest { public_key }).await.unwrap();
    let session_id = opened.into_inner().session_id;
    let need = Some(v1::Amounts { requests: 2, ..Default::default() });
    let allowance_id = bytes::Bytes::from(vec![7; 16]);
    let wish = v1::AllowanceRequest { allowance_id: allowance_id.clone(), need, wanted: None };
    let request = v1::DrawAllowanceRequest {
        session_id: session_id.clone(),
        virtual_key_id: key.id().to_string(),
        key_sha256: key.digest().as_bytes().to_vec().into(),
        allowance: Some(wish),
    };
    running.proxy.leases().draw_allowance(request).await.unwrap();
    let settlement = v1::Settlement {
        allowance_id,
        sequence: 1,
        covered: need,
        spent: Some(v1::Spent { requests: 2, ..Default::default() }),
        ..Default::default()
    };
    let request =
        v1::SettleUsageRequest { session_id, settlements: vec![settlement], usage: vec![] };
    running.proxy.leases().settle_usage(request).await.unwrap();
}

#[tokio::test]
async fn an_alert_reaches_its_receiver_signed_and_again_until_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (secret(folder.path(), "old"), secret(folder.path(), "new"));
    // The receiver has the new secret already, and the broker signs with both.
    let Some(mut receiver) = Receiver::start(&new, 2).await else { return };
    let webhook = format!(
        "{LOOPBACK}\
         [[log.webhooks]]\nname = \"alerts\"\nfrom = \"start\"\nurl = \"http://127.0.0.1:{}/hook\"\n\
         kinds = [\"BUDGET_ALERT\"]\ntenants = [\"acme\"]\nsecrets = [\"{}\", \"{}\"]\n",
        receiver.port,
        old.display(),
        new.display()
    );
    let running = Running::start_with(|config| config + &webhook).await;
    spend(&running).await;
    for turn in 0..3 {
        let call = receiver.next().await;
        assert_eq!(call["path"], "/hook");
        assert_eq!((&call["genuine"], &call["taken"]), (&json!(true), &json!(turn == 2)));
        // The controls: each would pass if its part of the signature were not checked.
        let passed = call["passed"].as_object().unwrap();
        assert!(passed.len() == 5 && passed.values().all(|it| it == false), "{passed:?}");
        assert_eq!(call["signatures"], 2);
        let event = &call["event"];
        assert_eq!((&event["kind"], &event["percent"]), (&json!("BUDGET_ALERT"), &json!(80)));
        assert_eq!((&event["tenant"], &event["budget"]), (&json!("acme"), &json!("once")));
        assert_eq!(event["amounts_requests"], 2, "the cap");
    }
    running.end().await;
}

#[tokio::test]
async fn a_receiver_without_the_secret_knows_a_call_from_a_forged_one() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (secret(folder.path(), "own"), secret(folder.path(), "other"));
    let Some(mut receiver) = Receiver::start(&other, 0).await else { return };
    let webhook = format!(
        "{LOOPBACK}\
         [[log.webhooks]]\nname = \"all\"\nfrom = \"start\"\nurl = \"http://127.0.0.1:{}/\"\nsecrets = [\"{}\"]\n",
        receiver.port,
        own.display()
    );
    let running = Running::start_with(|config| config + &webhook).await;
    spend(&running).await;
    // Without `kinds` it is called for everything of budgets, and the first of it is this.
    let call = receiver.next().await;
    assert_eq!((&call["genuine"], &call["taken"]), (&json!(false), &json!(false)));
    assert_eq!(call["event"]["kind"], "BUDGET_CREATED");
    running.end().await;
}

#[tokio::test]
async fn a_dead_receiver_delays_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let own = secret(folder.path(), "own");
    // Connections come up, as the system accepts them, and nobody ever reads from one.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut alive = Plain::start().await;
    alive.takes.store(true, Ordering::SeqCst);
    let path = folder.path().join("log.jsonl");
    let dead = alerts("dead", silent.local_addr().unwrap().port(), &own);
    let sink = format!(
        "[[log.sinks]]\nname = \"archive\"\n\
         to = {{ kind = \"file\", format = \"jsonl\", path = \"{}\" }}\n",
        path.display()
    );
    let config = format!("{LOOPBACK}{dead}{}{sink}", alerts("alive", alive.port, &own));
    let running = Running::start_with(|usual| usual + &config).await;
    spend(&running).await;
    let (_held, _) = silent.accept().await.unwrap();
    let (taken, event) = alive.calls.recv().await.unwrap();
    assert_eq!((taken, &event["kind"]), (true, &json!("BUDGET_ALERT")));
    while !fs::read_to_string(&path).unwrap_or_default().contains("BUDGET_ALERT") {
        yield_now().await;
    }
    // The broker lends on, and ends without waiting for it.
    let request = v1::CreateTenantRequest { tenant_id: "globex".into(), ..Default::default() };
    running.admin.tenants().create_tenant(request).await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn what_was_not_taken_goes_out_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let own = secret(folder.path(), "own");
    let mut receiver = Plain::start().await;
    let config = format!("{LOOPBACK}{}", alerts("alerts", receiver.port, &own));
    let running = Running::start_with(|usual| usual + &config).await;
    spend(&running).await;
    let (taken, first) = receiver.calls.recv().await.unwrap();
    assert!(!taken);
    let (_, kept, layout) = running.end_and_keep().await;
    // What is taken from here on, the next broker sends.
    receiver.takes.store(true, Ordering::SeqCst);
    let running = Running::start_in(kept, layout).await;
    let again = loop {
        if let (true, event) = receiver.calls.recv().await.unwrap() {
            break event;
        }
    };
    assert_eq!(again, first);
    running.end().await;
}

#[tokio::test]
async fn a_broker_does_not_start_with_a_webhook_that_cannot_work() {
    let folder = tempfile::tempdir().unwrap();
    let start = async |url: &str, secret: &Path| {
        let (_kept, layout) = layout();
        let usual = fs::read_to_string(&layout.broker_config).unwrap();
        let webhook = format!(
            "\n[[log.webhooks]]\nname = \"alerts\"\nurl = \"{url}\"\nsecrets = [\"{}\"]\n",
            secret.display()
        );
        fs::write(&layout.broker_config, format!("{usual}{webhook}")).unwrap();
        let (config, sha256) =
            broker::Config::load(&layout.broker_config).map_err(|error| error.to_string())?;
        let opened = broker::Broker::open(config, sha256).await;
        opened.map(|_| ()).map_err(|error| format!("{error:#}"))
    };
    let (good, url) = (secret(folder.path(), "good"), "https://hooks.example/");
    assert_eq!(start(url, &good).await, Ok(()));
    let refused = start("http://hooks.example/", &good).await.unwrap_err();
    assert!(refused.contains("log.webhooks: `alerts`") && refused.contains("https"), "{refused}");
    let missing = folder.path().join("missing");
    let refused = start(url, &missing).await.unwrap_err();
    assert!(refused.contains("the webhook `alerts`") && refused.contains("missing"), "{refused}");
    fs::set_permissions(&good, fs::Permissions::from_mode(0o444)).unwrap();
    let refused = start(url, &good).await.unwrap_err();
    assert!(refused.contains("chmod 0400"), "{refused}");
}
