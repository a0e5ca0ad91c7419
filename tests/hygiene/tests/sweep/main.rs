//! The canary sweep. Unique keys, prompts and answers go through broker and proxy in every way that
//! works and in many that do not; then they are looked for in every form and in every place where
//! they must not be. Each place is shown to be the right one by something that has to be there.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod apart;
mod drive;
mod memory;
mod peers;

use std::{fs, path::PathBuf, time::Duration};

use e2e::{Backing, Forms, files_with};
use hyper::Version;
use memchr::memmem;
use tokio::time::{Instant, sleep_until};

use crate::{
    apart::{Apart, PLANTED, Process},
    drive::{Canaries, Said},
    memory::{Writes, memory, memory_with},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_anywhere_on_the_embedded_stack() {
    sweep(Backing::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_anywhere_on_postgresql_and_kms() {
    if Backing::Scaled.is_available() {
        sweep(Backing::Scaled).await;
    }
}

async fn sweep(backing: Backing) {
    let mut apart = Apart::start(backing).await;
    let canaries = Canaries::new();
    let mut said = Said::default();
    drive::every_way(&apart, &canaries, &mut said).await;
    reached_the_providers(&apart, &canaries);

    let forms = canaries.forms();
    at_rest(&apart, &forms).await;
    writes_hold_nothing(&apart, &canaries, &mut said).await;
    drive::end_all(&apart, &canaries).await;
    at_rest(&apart, &forms).await;

    answers_hold_nothing(&canaries, &said);
    metrics_hold_nothing(&apart, &forms, &canaries).await;
    traces_hold_nothing(&apart, &forms, &canaries).await;
    apart.broker.crash().await;
    apart.proxy.crash().await;
    files_hold_nothing(&apart, &forms, &canaries, backing);
}

/// The control of all others: the keys were there to be lost.
fn reached_the_providers(apart: &Apart, canaries: &Canaries) {
    assert!(apart.plain.calls_with(&canaries.openai, Version::HTTP_11) > 5);
    assert!(apart.plain.calls_with(&canaries.rotated, Version::HTTP_11) > 0);
    assert!(apart.secure.calls_with(&canaries.anthropic, Version::HTTP_2) > 5);
}

/// Neither process holds anything once no call is in hand, with leases and without.
async fn at_rest(apart: &Apart, forms: &Forms) {
    for (name, process) in apart.processes() {
        // What the last call has used is given back shortly after its caller has the answer.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = memory_with(forms, process.pid);
            if found.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "in the {name}'s memory: {found:?}");
            sleep_until(Instant::now() + Duration::from_millis(500)).await;
        }
        can_be_read(process);
        let shown = |file: &str| fs::read(format!("/proc/{}/{file}", process.pid)).unwrap();
        assert_eq!(forms.find(&shown("cmdline")), None, "{name}");
        let limits = String::from_utf8(shown("limits")).unwrap();
        let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(cores.split_ascii_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    }
}

/// The search sees a process's memory, and what it was started with.
fn can_be_read(process: &Process) {
    let Some(pieces) = memory(process.pid) else { return };
    let holds =
        |text: &str| pieces.iter().any(|(_, piece)| memmem::find(piece, text.as_bytes()).is_some());
    assert!(holds(PLANTED), "the environment stands on the stack");
    assert!(holds(drive::TENANT), "the name of who is served");
    let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap();
    assert!(memmem::find(&environment, PLANTED.as_bytes()).is_some());
}

/// Of all that both processes write, only what goes to the provider has a key in it.
async fn writes_hold_nothing(apart: &Apart, canaries: &Canaries, said: &mut Said) {
    let forms = canaries.forms();
    let mut looking = Vec::new();
    let Some(strace) = e2e::strace() else { return };
    for (name, process) in apart.processes() {
        let into = apart.folder().join(format!("{name}.writes"));
        looking.push(Writes::of(&strace, process.pid, &into).await);
    }
    drive::once_more(apart, canaries, said).await;
    for writes in looking.into_iter().flatten() {
        let into = writes.noted_in().to_owned();
        let seen = writes.end().await;
        fs::remove_file(into).unwrap();
        let is_kept = |to: &str| !to.starts_with("socket:") && !to.starts_with("anon_inode:");
        let mut kept = seen.iter().filter(|write| is_kept(&write.to)).peekable();
        assert!(kept.peek().is_some(), "it logs, at the least");
        for write in kept {
            assert_eq!(forms.find(&write.bytes), None, "written to {}", write.to);
        }
        said.keys_sent += seen.iter().filter(|write| forms.find(&write.bytes).is_some()).count();
        said.was_traced = true;
    }
    // Over plain HTTP to a provider on loopback, where the search has to find it.
    assert_eq!(said.keys_sent > 0, said.was_traced);
}

/// No answer of the proxy and no error of the broker has a key in it.
fn answers_hold_nothing(canaries: &Canaries, said: &Said) {
    let keys = canaries.key_forms();
    for answer in &said.answers {
        let text = || String::from_utf8_lossy(answer).into_owned();
        assert_eq!(keys.find(answer), None, "{}", text());
    }
    let statuses = said.statuses();
    for status in ["200", "400", "401", "404", "413", "429", "500", "502"] {
        assert!(statuses.contains(status), "no answer with {status}, only {statuses:?}");
    }
    let forms = canaries.forms();
    for refusal in &said.refusals {
        assert_eq!(forms.find(refusal.as_bytes()), None, "{refusal}");
    }
    assert!(said.refusals.len() > 5);
}

async fn metrics_hold_nothing(apart: &Apart, forms: &Forms, canaries: &Canaries) {
    for (name, process) in apart.processes() {
        let metrics = process.metrics().await;
        assert!(metrics.contains("strongroom_"), "{metrics}");
        assert_eq!(forms.find(metrics.as_bytes()), None, "{name}");
        assert!(!metrics.contains(&canaries.person), "{name}");
    }
}

async fn traces_hold_nothing(apart: &Apart, forms: &Forms, canaries: &Canaries) {
    // Sent in batches, some seconds after.
    apart::until("traces arrive", || {
        let sent = apart.collector.bodies();
        let has = |text: &str| memmem::find(&sent, text.as_bytes()).is_some();
        (has("strongroom-inference-proxy") && has("strongroom-broker")).then_some(())
    })
    .await;
    let sent = apart.collector.bodies();
    assert_eq!(forms.find(&sent), None);
    assert!(memmem::find(&sent, canaries.person.as_bytes()).is_none());
}

/// Neither files nor a database server's have anything in them; what was planted in each form is found.
fn files_hold_nothing(apart: &Apart, forms: &Forms, canaries: &Canaries, backing: Backing) {
    let mut folders = vec![apart.folder().to_owned()];
    if backing == Backing::Scaled {
        folders.extend(e2e::server_files());
    }
    for folder in &folders {
        let (found, read) = files_with(forms, folder);
        assert_eq!(found, [], "in {}", folder.display());
        assert!(read > 0, "no files in {}", folder.display());
        // The name of who was served is in the database, and who serves is in all that is logged.
        let embedded = backing == Backing::Embedded;
        let known = if embedded || *folder != apart.folder() { drive::TENANT } else { "spiffe://" };
        let named = files_with(&Forms::plain(known), folder).0;
        assert!(!named.is_empty(), "{} is not where things are kept", folder.display());
    }
    for log in ["broker.log", "inference-proxy.log"] {
        let log = fs::read_to_string(apart.folder().join(log)).unwrap();
        assert!(log.contains("\"TRACE\""), "the logs are complete");
    }
    let planted = planted(apart, &canaries.openai);
    let (found, _) = files_with(forms, apart.folder());
    assert_eq!(found.len(), planted.len(), "{found:?}");
}

/// A file for each form of a secret.
fn planted(apart: &Apart, secret: &str) -> Vec<PathBuf> {
    let forms = Forms::of(secret);
    let plant = |(number, (_, form)): (usize, (&str, &[u8]))| {
        let file = apart.layout.data.join(format!("planted-{number}"));
        fs::write(&file, [b"before", form, b"after"].concat()).unwrap();
        file
    };
    forms.iter().enumerate().map(plant).collect()
}
