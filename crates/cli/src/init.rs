use std::{path::PathBuf, sync::Arc};

use clap::Args;
use domain::SystemClock;
use serde::Serialize;
use setup::Layout;

use crate::{
    failure::Failure,
    output::{Output, list},
};

/// Lays out a deployment.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// Where; it must not exist or be empty.
    directory: PathBuf,
    /// For more than one machine's trial: names your own trust domain.
    #[arg(long, requires = "trust_domain")]
    production: bool,
    /// The trust domain of all identities, such as `acme.internal`.
    #[arg(long)]
    trust_domain: Option<String>,
}

#[derive(Serialize)]
struct LayoutView {
    trust_domain: String,
    broker_config: PathBuf,
    proxy_config: PathBuf,
    cli_config: PathBuf,
    pki: PathBuf,
    kms_key: PathBuf,
    log_key: PathBuf,
    log_verifier: PathBuf,
    data: PathBuf,
}

impl Init {
    pub(crate) fn run(self, output: Output) -> Result<(), Failure> {
        let clock = Arc::new(SystemClock);
        let layout = match &self.trust_domain {
            Some(domain) => Layout::create(&self.directory, domain, clock),
            None => Layout::development(&self.directory, clock),
        };
        let layout = LayoutView::from(layout.map_err(Failure::Setup)?);
        output.show(&layout, human)?;
        if self.production {
            output.note(PRODUCTION);
        }
        Ok(())
    }
}

impl From<Layout> for LayoutView {
    fn from(layout: Layout) -> Self {
        Self {
            trust_domain: layout.trust_domain,
            broker_config: layout.broker_config,
            proxy_config: layout.proxy_config,
            cli_config: layout.cli_config,
            pki: layout.pki,
            kms_key: layout.kms_key,
            log_key: layout.log_key,
            log_verifier: layout.log_verifier,
            data: layout.data,
        }
    }
}

fn human(layout: &LayoutView) -> String {
    list([
        ("trust domain", layout.trust_domain.clone()),
        ("broker", layout.broker_config.display().to_string()),
        ("proxy", layout.proxy_config.display().to_string()),
        ("this tool", layout.cli_config.display().to_string()),
        ("identities", layout.pki.display().to_string()),
        ("KMS key", layout.kms_key.display().to_string()),
        ("log key", layout.log_key.display().to_string()),
        ("log verifier", layout.log_verifier.display().to_string()),
        ("data", layout.data.display().to_string()),
    ])
}

const PRODUCTION: &str = "
Before others depend on it:
  - let your own authority (such as SPIRE) issue the identities; keep pki/ca.key off the servers
  - set [kms] in broker.toml to a KMS or an HSM, or keep copies of the KMS key apart from the data
  - set [store] in broker.toml to PostgreSQL if more than one broker is to run, and [shares.store] to
    another server
  - hand the log verifier to whoever verifies the log";
