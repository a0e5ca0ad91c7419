use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use setup::Layout;
use strongroom_proto::v1;

use crate::{
    connections::revoke_for,
    harness::{connect, layout, verified},
};

/// The real binary, until it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Process {
    pub(crate) fn start(layout: &Layout) -> Self {
        let mut child = command(layout).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().unwrap().unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            let text = |key| event.get(key).and_then(serde_json::Value::as_str);
            if text("message") == Some("listening") {
                break text("address").unwrap().to_owned();
            }
        };
        // Somebody has to read on, or the broker would stand still at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already in the good case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn command(layout: &Layout) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.arg("--config").arg(&layout.broker_config);
    command
}

pub(crate) fn listening_anywhere() -> (tempfile::TempDir, Layout) {
    let (folder, layout) = layout();
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    fs::write(&layout.broker_config, text.replace("127.0.0.1:7443", "127.0.0.1:0")).unwrap();
    (folder, layout)
}

#[tokio::test]
async fn sigterm_ends_it_cleanly_and_it_starts_again_on_the_same_log() {
    let (_folder, layout) = listening_anywhere();
    for starts in 1..=2 {
        let mut broker = Process::start(&layout);
        let admin = connect(&layout, &broker.address, "admin");
        let request = v1::GetTenantRequest { name: "tenants/platform".into() };
        admin.tenants().get_tenant(request).await.unwrap();
        let verifier = fs::read_to_string(&layout.log_verifier).unwrap();
        let records = verified(&admin, &verifier.trim().parse().unwrap()).await;
        let started = |record: &&audit::Record| record.kind() == audit::Kind::BrokerStarted;
        assert_eq!(records.iter().filter(started).count(), starts);
        broker.signal(Signal::TERM);
        assert!(broker.child.wait().unwrap().success());
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_has_lost_no_acknowledged_write() {
    let (_folder, layout) = listening_anywhere();
    let verifier = fs::read_to_string(&layout.log_verifier).unwrap().trim().parse().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        let broker = Process::start(&layout);
        let admin = connect(&layout, &broker.address, "admin");
        let mut writers = tokio::task::JoinSet::new();
        let (first, mut any) = tokio::sync::watch::channel(false);
        for writer in 0..4 {
            let (admin, first) = (admin.clone(), first.clone());
            writers.spawn(async move {
                let mut written = Vec::new();
                for number in 0.. {
                    let id = format!("t-{round}-{writer}-{number}");
                    let request =
                        v1::CreateTenantRequest { tenant_id: id.clone(), ..Default::default() };
                    match admin.tenants().create_tenant(request).await {
                        Ok(_) => {
                            written.push(id);
                            first.send_replace(true);
                        }
                        Err(_) => return written,
                    }
                }
                written
            });
        }
        // Killed as soon as something has been written, in the middle of more.
        any.wait_for(|any| *any).await.unwrap();
        for _ in 0..=round {
            let page = v1::ListRecordsRequest { page_size: 1, ..Default::default() };
            admin.audit().list_records(page).await.unwrap();
        }
        broker.signal(Signal::KILL);
        while let Some(written) = writers.join_next().await {
            acknowledged.extend(written.unwrap());
        }
    }
    assert!(!acknowledged.is_empty());
    let broker = Process::start(&layout);
    let admin = connect(&layout, &broker.address, "admin");
    for id in &acknowledged {
        let request = v1::GetTenantRequest { name: format!("tenants/{id}") };
        admin.tenants().get_tenant(request).await.unwrap();
    }
    let records = verified(&admin, &verifier).await;
    for id in &acknowledged {
        assert!(records.iter().any(|record| record.tenant == *id), "{id} has no record");
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_said_and_ends_it() {
    let (_folder, layout) = listening_anywhere();
    let check = |text: &str, expected: &str| {
        let before = fs::read_to_string(&layout.broker_config).unwrap();
        fs::write(&layout.broker_config, text).unwrap();
        let output = command(&layout).output().unwrap();
        fs::write(&layout.broker_config, before).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    check("listen = 5", "listen");
    check(&text.replace("pki/broker.pem", "pki/no-such.pem"), "no-such.pem");
}

#[test]
fn a_policy_that_cannot_be_used_is_said_with_its_line_and_ends_it() {
    let (_folder, layout) = listening_anywhere();
    let text = fs::read_to_string(&layout.policy).unwrap();
    let check = |text: &str, line: bool, expected: &str| {
        fs::write(&layout.policy, text).unwrap();
        for arguments in [&[][..], &["check-config"]] {
            let output = command(&layout).args(arguments).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(expected), "{said}");
            assert_eq!(said.contains("policy.toml: line "), line, "{said}");
        }
    };
    let prune = "may = [\"Audit/PruneRecords\"]";
    check(&text.replace(prune, "may = []"), false, "no role names Audit/PruneRecords");
    check(&text.replace("PruneRecords", "Everything"), true, "`Audit/Everything` is no method");
    check(&text.replace("role = \"pruner\"", "role = \"prnr\""), true, "no role `prnr`");
    check("roles = 5", true, "expected a map");
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    for exposed in [0, 1, 2] {
        let (_folder, layout) = listening_anywhere();
        let key = layout.pki.join("broker.key");
        let path = [&layout.kms_key, &layout.log_key, &key][exposed];
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        let output = command(&layout).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(said.contains(&name), "{said}");
    }
}

/// What the binary says to a check, and whether it finds nothing to refuse.
fn checked(layout: &Layout) -> (bool, String) {
    let output = command(layout).arg("check-config").output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_check_refuses_what_a_start_would_and_needs_no_database() {
    use std::os::unix::fs::PermissionsExt as _;

    let refused = |spoil: &dyn Fn(&Layout), expected: &str| {
        let (_folder, layout) = listening_anywhere();
        // The control, and nothing is made by it.
        let (usable, said) = checked(&layout);
        assert!(usable && said.contains("can be used") && !said.contains("WARN"), "{said}");
        assert!(!layout.data.join("strongroom.db").exists());
        spoil(&layout);
        let (usable, said) = checked(&layout);
        assert!(!usable && said.contains(expected), "{said}");
        assert!(!command(&layout).status().unwrap().success());
    };
    let configured = |layout: &Layout, before: &str, after: &str| {
        let text = fs::read_to_string(&layout.broker_config).unwrap();
        assert!(text.contains(before), "{text}");
        fs::write(&layout.broker_config, text.replacen(before, after, 1)).unwrap();
    };
    refused(&|layout| fs::remove_file(&layout.kms_key).unwrap(), "kms.key");
    let open = |path: &std::path::Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    refused(&|layout| open(&layout.kms_key), "mode 0400 or 0600");
    refused(&|layout| open(&layout.log_key), "can be read by others");
    refused(&|layout| open(&layout.pki.join("broker.key")), "broker.key");
    let section = "[kms_recovery]\nkind = \"local\"\nkey_file = \"no.key\"\n\n[store]\n";
    refused(&|layout| configured(layout, "[store]\n", section), "no.key");
    let in_one = |layout: &Layout| {
        let text = fs::read_to_string(&layout.broker_config).unwrap();
        let paths: Vec<_> = text.lines().filter(|line| line.starts_with("path = ")).collect();
        assert_eq!(paths.len(), 2, "{text}");
        configured(layout, paths[1], paths[0]);
    };
    refused(&in_one, "a database of its own");
}

#[test]
fn a_check_warns_of_what_a_start_warns_of() {
    let (_folder, layout) = listening_anywhere();
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    let key = layout.kms_key.display();
    let section = format!("[kms_recovery]\nkind = \"local\"\nkey_file = \"{key}\"\n\n[store]\n");
    fs::write(&layout.broker_config, text.replacen("[store]\n", &section, 1)).unwrap();
    let (usable, said) = checked(&layout);
    assert!(usable && said.contains("it should stand in for"), "{said}");

    let text =
        text.replace("ca = \"pki/ca.pem\"\n", "ca = \"pki/ca.pem\"\ncrl = \"pki/crl.pem\"\n");
    fs::write(&layout.broker_config, text).unwrap();
    for (minutes, warns) in [(120, false), (1, true)] {
        revoke_for(&layout, &[], Duration::from_mins(minutes));
        let (usable, said) = checked(&layout);
        assert!(usable, "{said}");
        assert_eq!(said.contains("past its next update"), warns, "{said}");
    }
}

#[tokio::test]
async fn a_root_key_that_is_another_one_is_named() {
    let (_folder, layout) = listening_anywhere();
    let mut broker = Process::start(&layout);
    broker.signal(Signal::TERM);
    assert!(broker.child.wait().unwrap().success());
    fs::remove_file(&layout.kms_key).unwrap();
    envelope::LocalKms::create_new(&layout.kms_key, None).unwrap();
    let output = command(&layout).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("[kms] has local:") && said.contains("under local:"), "{said}");
    assert!(said.contains("broker recover") && !said.contains("Corrupt"), "{said}");
}

#[tokio::test]
async fn a_database_that_lost_what_was_signed_is_refused() {
    let (_folder, layout) = listening_anywhere();
    let mut broker = Process::start(&layout);
    let admin = connect(&layout, &broker.address, "admin");
    let verifier = fs::read_to_string(&layout.log_verifier).unwrap().trim().parse().unwrap();
    // One that has signed leads, and signs once more as it stops.
    verified(&admin, &verifier).await;
    broker.signal(Signal::TERM);
    assert!(broker.child.wait().unwrap().success());
    for entry in fs::read_dir(&layout.data).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("strongroom.db") {
            fs::remove_file(path).unwrap();
        }
    }
    let output = command(&layout).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("does not continue the checkpoint"), "{said}");

    // It says how to go on; what it says works, and leaves the evidence and a record.
    let (_, arguments) = said.split_once("broker give-up-checkpoint ").unwrap();
    let (arguments, _) = arguments.split_once('`').unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.arg("give-up-checkpoint").args(arguments.split(' '));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let broker = Process::start(&layout);
    let admin = connect(&layout, &broker.address, "admin");
    let records = verified(&admin, &verifier).await;
    let given_up = |record: &audit::Record| record.kind() == audit::Kind::CheckpointGivenUp;
    let given_up = records.iter().find(|record| given_up(record)).unwrap();
    let evidence = fs::read_dir(last_checkpoint(&layout).parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with(&format!("given-up-{}", given_up.tree_size)));
    let evidence = fs::read_to_string(evidence.unwrap()).unwrap();
    let lost = audit::Checkpoint::verify(&evidence, &verifier).unwrap();
    assert_eq!(lost.root.as_slice(), &given_up.tree_root[..]);

    // There is nothing to give up now.
    drop(broker);
    let newest = fs::read_to_string(last_checkpoint(&layout)).unwrap();
    let newest = audit::Checkpoint::verify(&newest, &verifier).unwrap();
    let (size, root) = (newest.size.to_string(), newest.root_text());
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.arg("--config").arg(&layout.broker_config).arg("give-up-checkpoint");
    let output = command.args(["--size", &size, "--root", &root]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("nothing is lost"), "{said}");
}

fn last_checkpoint(layout: &Layout) -> std::path::PathBuf {
    broker::Config::load(&layout.broker_config).unwrap().0.log.last_checkpoint
}
