//! The first root key is lost: what a backup of the database and the second root still give back.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use audit::Kind;
use domain::{TenantId, VirtualKey};
use envelope::LocalKms;
use setup::Layout;
use strongroom_proto::v1;
use tempfile::TempDir;

use crate::{
    harness::Running,
    lending::{SECRET, cache, key, with_credential, with_key},
    process::{command, listening_anywhere},
};

/// Names a recovery root in the configuration.
fn covered_by(layout: &Layout, key_file: &Path) {
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    let key_file = key_file.display();
    let section =
        format!("[kms_recovery]\nkind = \"local\"\nkey_file = \"{key_file}\"\n\n[store]\n");
    let text = text.split_once("[kms_recovery]").map_or(text.clone(), |(before, after)| {
        format!("{before}{}", &after[after.find("[store]").unwrap()..])
    });
    fs::write(&layout.broker_config, text.replacen("[store]\n", &section, 1)).unwrap();
}

fn recover(layout: &Layout, arguments: &[&str]) -> bool {
    let mut command = command(layout);
    command.arg("recover").args(arguments).status().unwrap().success()
}

/// Whether a broker comes as far as listening. It is ended then.
fn starts(layout: &Layout) -> bool {
    let mut child = command(layout).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listens = lines.any(|line| line.unwrap().contains("\"listening\""));
    // It has ended already if it does not listen.
    let _ = child.kill();
    child.wait().unwrap();
    listens
}

async fn furnish(running: &Running, tenant: &str) -> (TenantId, VirtualKey) {
    let (tenant, _) = with_credential(running, tenant).await;
    let key = with_key(running, &tenant, &[]).await;
    (tenant, key)
}

/// Another machine with a root key of its own, the backup, and what is kept apart from backups.
fn restored(lost: &Layout) -> (TempDir, Layout) {
    let (folder, layout) = listening_anywhere();
    let shares = |layout: &Layout| layout.data.with_file_name("shares");
    fs::create_dir(shares(&layout)).unwrap();
    for (from, to) in [(&lost.data, &layout.data), (&shares(lost), &shares(&layout))] {
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    fs::remove_file(&layout.log_key).unwrap();
    fs::copy(&lost.log_key, &layout.log_key).unwrap();
    (folder, layout)
}

#[tokio::test]
async fn a_backup_and_the_second_root_give_every_credential_back() {
    let elsewhere = tempfile::tempdir().unwrap();
    let [second, wrong] = ["second.key", "wrong.key"].map(|name| elsewhere.path().join(name));
    for file in [&second, &wrong] {
        LocalKms::create_new(file, None).unwrap();
    }
    let (folder, before) = listening_anywhere();
    let running = Running::start_in(folder, before).await;
    // From before there was a second root.
    let mut furnished = vec![furnish(&running, "globex").await];
    let (_, folder, before) = running.end_and_keep().await;
    covered_by(&before, &second);
    let running = Running::start_in(folder, before).await;
    let request = v1::RewrapKeysRequest { request_id: "r-1".into(), ..Default::default() };
    running.admin.kms().rewrap_keys(request).await.unwrap();
    furnished.push(furnish(&running, "acme").await);
    let request = v1::RotateKekRequest { tenant: "tenants/acme".into(), request_id: "r-2".into() };
    running.admin.kms().rotate_kek(request).await.unwrap();
    until_all_are_under_both(&running).await;
    let (_, lost_folder, lost) = running.end_and_keep().await;

    let (folder, layout) = restored(&lost);
    drop(lost_folder);
    assert!(!recover(&layout, &[]) && !starts(&layout), "there is no second root");
    covered_by(&layout, &wrong);
    assert!(!recover(&layout, &[]) && !starts(&layout), "this is another one");
    covered_by(&layout, &second);
    assert!(!starts(&layout), "nobody has decided to use it");
    assert!(recover(&layout, &["--dry-run"]));
    assert!(!starts(&layout), "a drill changes nothing");
    assert!(recover(&layout, &[]) && starts(&layout));

    let running = Running::start_in(folder, layout).await;
    for (_, virtual_key) in &furnished {
        let lease = cache(&running).lease(&key(virtual_key, "gpt-4o")).await.unwrap();
        assert_eq!(lease.unseal().unwrap().expose(), SECRET.as_bytes());
    }
    until_all_are_under_both(&running).await;
    let records = running.end().await;
    let recovered = records.iter().filter(|record| record.because == "recovery");
    let kinds: Vec<_> = recovered.map(audit::Record::kind).collect();
    assert!(kinds.len() >= 4 && kinds.iter().all(|kind| *kind == Kind::KeyRewrapped), "{kinds:?}");
}

async fn until_all_are_under_both(running: &Running) {
    loop {
        let request = v1::GetKmsStatusRequest::default();
        let status = running.admin.kms().get_status(request).await.unwrap().into_inner();
        let [root] = &*status.roots else { panic!("{status:?}") };
        assert!(root.healthy && root.current_key.contains(" and local:"), "{root:?}");
        if root.outdated_keys == 0 && status.work.iter().all(|work| work.done) {
            assert_eq!(status.last_error, "");
            return;
        }
        tokio::task::yield_now().await;
    }
}
