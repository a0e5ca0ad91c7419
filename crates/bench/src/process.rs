use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use domain::{Clock as _, SystemClock};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use strongroom_client::ClientError;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, stdin},
    process::{Child, Command},
    time::sleep,
};
use tonic::{Code, Status};

/// A server in a process of its own. It ends with this.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: String,
    /// The processes that do the work.
    pub(crate) workers: Vec<u32>,
    child: Child,
}

impl Server {
    /// Starts a role of this binary that serves.
    pub(crate) async fn role(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start(std::env::current_exe()?, &[&["role"], arguments].concat()).await
    }

    /// Starts a broker or a proxy as it is shipped.
    pub(crate) async fn served(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start(beside("served", "bench")?, arguments).await
    }

    /// One that was started otherwise.
    pub(crate) fn known(address: String, workers: Vec<u32>, child: Child) -> Self {
        Self { address, workers, child }
    }

    async fn start(binary: PathBuf, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(&binary)
            .args(arguments)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let address = BufReader::new(stdout).lines().next_line().await?;
        let address = address.with_context(|| format!("{arguments:?} did not start"))?;
        let workers = child.id().into_iter().collect();
        Ok(Self { address, workers, child })
    }

    /// Ends it without a word, as a machine that fails would.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        let id = self.child.id().context("it has ended")?;
        let pid = Pid::from_raw(id.try_into()?).context("it has no number")?;
        Ok(kill_process(pid, Signal::KILL)?)
    }

    /// Waits until it is gone.
    pub(crate) async fn gone(&mut self) -> anyhow::Result<()> {
        self.child.wait().await?;
        Ok(())
    }

    /// The CPU time that it has used so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.workers.iter().map(|pid| cpu(*pid)).sum()
    }
}

/// Another binary of the same build.
pub(crate) fn beside(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let binary = std::env::current_exe()?.with_file_name(name);
    if !binary.exists() {
        bail!(
            "{} is missing: build it with `cargo build --release -p {package}`",
            binary.display()
        );
    }
    Ok(binary)
}

/// Runs a role of this binary to its end, and reads the JSON that it prints.
pub(crate) async fn result<T: DeserializeOwned>(arguments: &[&str]) -> anyhow::Result<T> {
    let output = Command::new(std::env::current_exe()?)
        .arg("role")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?} gave no result"))
}

/// Asks again for as long as a broker answers that it cannot at the moment, within patience: a busy
/// machine is to make a figure worse, not to end the run.
pub(crate) async fn persist<T, F: Future<Output = anyhow::Result<T>>>(
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let began = SystemClock.elapsed();
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let waited = SystemClock.elapsed().saturating_sub(began);
        if !cannot_now(&error) || waited > PATIENCE {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

fn cannot_now(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref::<Status>().map(Status::code);
    let client = error.downcast_ref::<ClientError>().and_then(|error| {
        if let ClientError::Call(status) = error { Some(status.code()) } else { None }
    });
    status.or(client) == Some(Code::Unavailable)
}

const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Writes a line that the starting process waits for.
#[expect(clippy::print_stdout, reason = "whoever started it reads this")]
pub(crate) fn announce(line: &str) {
    println!("{line}");
}

/// Waits for the end of standard input: whoever started this is gone.
pub(crate) async fn orphaned() {
    let mut lines = BufReader::new(stdin()).lines();
    while let Ok(Some(_)) = lines.next_line().await {}
}

/// User and system time of a process and all its threads, those that have ended too.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a server has ended")?;
    // The name, in brackets, may hold anything; the 12th and 13th fields after it are the times.
    let (_, fields) = stat.rsplit_once(')').context("/proc has another form")?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut next = || fields.next().and_then(|ticks| ticks.parse::<u64>().ok());
    let ticks = next().zip(next()).map(|(user, system)| user + system);
    let ticks = ticks.context("/proc has another form")?;
    Ok(Duration::from_secs_f64(to_f64(ticks) / to_f64(rustix::param::clock_ticks_per_second())))
}

#[expect(clippy::cast_precision_loss, reason = "measurements are not that exact")]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}
