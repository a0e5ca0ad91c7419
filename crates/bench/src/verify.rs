use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use audit::{
    Bundle, Checkpoint, Frontier, HashTile, SignerKey, TileFolder, encode_bundle, leaf_hash,
};
use domain::{Clock as _, SystemClock};
use tokio::process::Command;

use self::invented::Invented;
use crate::{
    process::{beside, to_f64},
    table::{Rounds, note, print},
};

mod invented;

/// What verifying an export of many entries costs, with the command that auditors use.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Entries of the log.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    #[arg(long)]
    json: bool,
}

/// Makes an export, verifies it once a round beside the bare work of hashing it, and last of all
/// checks that a changed bit is found where it is.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    ensure!(args.entries > 0, "a log without entries has nothing to verify");
    let strongroom = beside("strongroom", "strongroom-cli")?;
    let folder = tempfile::tempdir()?;
    note(&format!("writing {} entries", args.entries));
    let key = SignerKey::generate("bench.strongroom.local/log")?;
    let bytes = write(folder.path(), args.entries, &key)?;
    note(&format!("{} MB", bytes / 1_000_000));
    let verification =
        Verification { strongroom, vkey: key.verifier().to_string(), folder: folder.path() };
    let mut rounds = Rounds::default();
    for round in 0..=args.rounds {
        note(&format!("round {round} of {}", args.rounds));
        let began = SystemClock.elapsed();
        hash(folder.path(), args.entries)?;
        let hashed = SystemClock.elapsed();
        verification.passes(args.entries).await?;
        let verified = SystemClock.elapsed();
        // The first round fills the page cache.
        if round > 0 {
            let mut add = |what, took: Duration| {
                let seconds = took.as_secs_f64();
                rounds.add(what, SECONDS, seconds);
                rounds.add(what, RATE, to_f64(args.entries) / seconds);
            };
            add(HASHED, hashed.saturating_sub(began));
            add(VERIFIED, verified.saturating_sub(hashed));
        }
    }
    for entry in [0, args.entries / 2, args.entries - 1] {
        verification.finds_a_change_at(entry, args.entries).await?;
    }
    note("a changed bit of the first, a middle and the last entry is found where it is");
    let seconds = |what| rounds.median(what, SECONDS).unwrap_or(f64::NAN);
    let ratio = (format!("{VERIFIED} / {HASHED}"), seconds(VERIFIED) / seconds(HASHED));
    print(&rounds.rows(), &[ratio], args.json);
    Ok(())
}

/// Writes an export, and gives how long its entries are.
fn write(folder: &Path, entries: u64, key: &SignerKey) -> anyhow::Result<usize> {
    let (mut log, mut tree, mut tiles) =
        (Invented::default(), Frontier::default(), TileFolder::default());
    let keep = |tile: HashTile, bytes: &[u8]| put(&folder.join(tile.path()), bytes);
    let mut length = 0;
    for bundle in Bundle::covering(entries) {
        let mut bodies = Vec::new();
        for _ in 0..bundle.width {
            let body = log.next_body()?;
            let leaf = leaf_hash(&body);
            tree.push(leaf);
            tiles.push(leaf, keep)?;
            length += body.len();
            bodies.push(body);
        }
        put(&folder.join(bundle.path()), &encode_bundle(bodies)?)?;
    }
    tiles.finish(keep)?;
    put(&folder.join("checkpoint"), Checkpoint::sign(tree.size(), &tree.root(), key)?.as_bytes())?;
    Ok(length)
}

fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::create_dir_all(path.parent().context("it lies in a folder")?)?;
    Ok(fs::write(path, bytes)?)
}

/// The least that any verifier does: reads every entry, hashes it and computes the root.
fn hash(folder: &Path, entries: u64) -> anyhow::Result<()> {
    let mut tree = Frontier::default();
    for bundle in Bundle::covering(entries) {
        let bytes = fs::read(folder.join(bundle.path()))?;
        bundle.decode(&bytes)?.into_iter().for_each(|body| tree.push(leaf_hash(body)));
    }
    ensure!(tree.size() == entries, "the export is not whole");
    Ok(())
}

/// The command as an auditor gives it.
struct Verification<'a> {
    strongroom: PathBuf,
    vkey: String,
    folder: &'a Path,
}

impl Verification<'_> {
    async fn passes(&self, entries: u64) -> anyhow::Result<()> {
        let (code, said) = self.run().await?;
        ensure!(code == Some(0), "exit code {code:?}: {said}");
        let report: serde_json::Value = serde_json::from_str(&said)?;
        let size = report.get("size").and_then(serde_json::Value::as_u64);
        ensure!(size == Some(entries), "{size:?} entries were verified, of {entries}");
        Ok(())
    }

    /// Changes a bit of an entry and back again.
    async fn finds_a_change_at(&self, entry: u64, entries: u64) -> anyhow::Result<()> {
        let bundle = Bundle::covering(entries).find(|bundle| {
            (bundle.first_entry()..bundle.first_entry() + bundle.width).contains(&entry)
        });
        let bundle = bundle.context("an entry is in a bundle")?;
        let path = self.folder.join(bundle.path());
        let whole = fs::read(&path)?;
        let mut bodies = bundle.decode(&whole)?.into_iter().map(Vec::from).collect::<Vec<_>>();
        let body = bodies.get_mut(usize::try_from(entry - bundle.first_entry())?);
        // What stands there is the place that the entry says it has, or how long its time is.
        *body.and_then(|body| body.get_mut(1)).context("an entry has a body")? ^= 1;
        fs::write(&path, encode_bundle(bodies)?)?;
        let (code, said) = self.run().await?;
        fs::write(&path, whole)?;
        ensure!(code == Some(3), "a changed bit is not noticed: exit code {code:?}, {said}");
        let named = serde_json::from_str::<serde_json::Value>(&said)?;
        let named = named.pointer("/error/index").and_then(serde_json::Value::as_u64);
        ensure!(named == Some(entry), "entry {entry} was changed, and {named:?} is named: {said}");
        Ok(())
    }

    /// Runs it to its end. Gives its exit code and what it said.
    async fn run(&self) -> anyhow::Result<(Option<i32>, String)> {
        let output = Command::new(&self.strongroom)
            .args(["--json", "audit", "verify"])
            .arg(self.folder)
            .args(["--vkey", &self.vkey])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let said = if output.status.success() { output.stdout } else { output.stderr };
        Ok((output.status.code(), String::from_utf8(said)?))
    }
}

const HASHED: &str = "entries read and hashed";
const VERIFIED: &str = "strongroom audit verify";
const SECONDS: &str = "seconds";
const RATE: &str = "entries per second";
