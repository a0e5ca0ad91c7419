use std::{fmt, net::SocketAddr, path::Path};

use crate::environment::KNOWN;

/// What a newcomer needs to know.
#[derive(Debug)]
pub(crate) struct Welcome<'a> {
    pub(crate) proxy: SocketAddr,
    pub(crate) broker: SocketAddr,
    pub(crate) operations: SocketAddr,
    pub(crate) stand_in: Option<SocketAddr>,
    pub(crate) state_dir: &'a Path,
    pub(crate) key: &'a str,
    /// The provider to try.
    pub(crate) provider: &'a str,
}

impl Welcome<'_> {
    /// The lines that a script sources.
    pub(crate) fn for_scripts(&self) -> String {
        let Self { proxy, key, .. } = self;
        format!("STRONGROOM_BASE_URL=http://{proxy}/v1\nSTRONGROOM_API_KEY={key}")
    }

    /// A line to paste.
    fn curl(&self) -> String {
        let Self { proxy, key, .. } = self;
        let known = KNOWN.iter().find(|known| known.provider == self.provider);
        let model = known.map(|known| known.model).unwrap_or_default();
        let messages = r#""messages":[{"role":"user","content":"Say hello."}]"#;
        if self.provider == "anthropic" {
            format!(
                "curl http://{proxy}/v1/messages -H 'x-api-key: {key}' -H 'anthropic-version: \
                 2023-06-01' -H 'content-type: application/json' -d \
                 '{{\"model\":\"{model}\",\"max_tokens\":64,{messages}}}'"
            )
        } else {
            format!(
                "curl http://{proxy}/v1/chat/completions -H 'authorization: Bearer {key}' -H \
                 'content-type: application/json' -d '{{\"model\":\"{model}\",{messages}}}'"
            )
        }
    }
}

impl fmt::Display for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxy, broker, operations, key, .. } = self;
        let state = self.state_dir.display();
        writeln!(f, "\nStrongroom runs.")?;
        writeln!(f, "  inference proxy  http://{proxy}  for applications")?;
        writeln!(f, "  broker           {broker}  gRPC over mutual TLS")?;
        writeln!(f, "  operations       http://{operations}  /metrics, /healthz, /readyz")?;
        writeln!(f, "  state            {state}  keys, log and database; delete it to start anew")?;
        if let Some(stand_in) = self.stand_in {
            writeln!(
                f,
                "\nNo provider's key is in the environment, so answers come from a stand-in at \
                 {stand_in} and NOT from a model.\nSet {} and start again to call one.",
                KNOWN.map(|known| known.variable).join(" or "),
            )?;
        }
        writeln!(f, "\nTry it:\n\n{}\n", self.curl())?;
        writeln!(f, "The key is good for 24 hours, or until the next start. SDKs find it here:")?;
        writeln!(f, "  export OPENAI_BASE_URL=http://{proxy}/v1 OPENAI_API_KEY={key}")?;
        writeln!(f, "  export ANTHROPIC_BASE_URL=http://{proxy} ANTHROPIC_API_KEY={key}")?;
        writeln!(
            f,
            "\nTo administer it (configuration: {state}/strongroom.toml):\n  \
             cargo run -p strongroom-cli -- --config {state}/strongroom.toml --help"
        )?;
        write!(f, "\nThe log, record by record. Ctrl-C stops everything and verifies it.")
    }
}
