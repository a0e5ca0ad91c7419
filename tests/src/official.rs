use std::{
    path::Path,
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::process::Command;

use crate::{Deployment, backing::variable};

/// An official SDK, pointed at a deployment's proxy as an application would.
#[derive(Clone, Copy, Debug)]
pub enum Sdk {
    /// `openai` from the Python Package Index.
    OpenAi,
    /// `anthropic` from the Python Package Index.
    Anthropic,
}

impl Sdk {
    /// Runs one command of the SDK's script with a virtual key; gives what it printed.
    pub async fn call(self, deployment: &Deployment, key: &str, command: &str) -> Value {
        self.call_with(deployment, key, command, &[]).await
    }

    /// As `call`, with more variables, which the script's first lines name.
    pub async fn call_with(
        self,
        deployment: &Deployment,
        key: &str,
        command: &str,
        variables: &[(&str, &str)],
    ) -> Value {
        let script = match self {
            Self::OpenAi => "openai_calls.py",
            Self::Anthropic => "anthropic_calls.py",
        };
        let base_url = format!("http://{}/v1", deployment.proxy());
        let common = [
            ("STRONGROOM_BASE_URL", &*base_url),
            ("STRONGROOM_API_KEY", key),
            ("STRONGROOM_PROMPT", PROMPT),
        ];
        let printed = run_in(script, &[command], &[&common, variables].concat()).await;
        serde_json::from_str(&printed).expect("the script prints JSON")
    }
}

/// What a script that was refused printed about it; `Null` when it was served.
pub fn refused(printed: &Value) -> &Value {
    &printed["refused"]
}

/// Runs a script of `tests/clients`; gives what it printed.
pub async fn run(script: &str, arguments: &[&str]) -> String {
    run_in(script, arguments, &[]).await
}

/// Runs a script that is to fail; gives what it said about it.
pub async fn fails(script: &str, arguments: &[&str]) -> String {
    let output = python(script, arguments, &[]).await;
    assert!(!output.status.success(), "{script} {arguments:?} did not fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) async fn run_in(script: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = python(script, arguments, variables).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

async fn python(script: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command(script, arguments);
    command.envs(variables.iter().copied()).stdin(Stdio::null()).output().await.unwrap()
}

/// How a script of `tests/clients` is started.
pub(crate) fn command(script: &str, arguments: &[&str]) -> Command {
    let python = variable("TEST_PYTHON").expect("TEST_PYTHON is set: use tests/run");
    let mut command = Command::new(python);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true);
    command
}

/// What applications say to the model.
pub const PROMPT: &str = "Say hello, and let nobody write this sentence down.";
