use std::{env, io, path::Path, process::Stdio};

use serde_json::Value;
use tokio::process::Command;

/// Calls each case with the SDK of a script in `tests/clients`, as its first lines say; gives what it
/// printed, or nothing where there are no SDKs. `trusted` is whose certificates AWS's SDK accepts.
pub async fn call_with_sdk(
    script: &str,
    cases: &[Value],
    trusted: Option<&Path>,
) -> io::Result<Option<Value>> {
    let is_node = Path::new(script).extension().is_some_and(|extension| extension == "cjs");
    let tool = if is_node { "TEST_NODE_MODULES" } else { "TEST_PYTHON" };
    let Some(tool) = variable(tool) else { return Ok(None) };
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients");
    let output = Command::new(if is_node { "node" } else { &*tool })
        .arg(clients.join(script))
        .envs(trusted.map(|trusted| ("AWS_CA_BUNDLE", trusted)))
        .envs(is_node.then_some(("NODE_PATH", &*tool)))
        .env("STRONGROOM_CASES", Value::from(cases).to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{script}: {stderr}")));
    }
    Ok(Some(serde_json::from_slice(&output.stdout)?))
}

#[expect(clippy::disallowed_methods, reason = "the test command hands its tools over this way")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
