use std::{path::PathBuf, sync::Arc};

use domain::SystemClock;
use strongroom_client::Broker;

use crate::{config, failure::Failure, output::Output};

/// What every verb that talks to the broker needs.
#[derive(Debug)]
pub(crate) struct Context {
    config: Option<PathBuf>,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(config: Option<PathBuf>, output: Output) -> Self {
        Self { config, output }
    }

    pub(crate) fn broker(&self) -> Result<Broker, Failure> {
        let config = config::load(self.config.as_deref())?;
        Ok(Broker::connect(&config, Arc::new(SystemClock))?)
    }
}
