use std::sync::Arc;

use audit::Reason;
use envelope::RowKey;
use store::{SinkRow, Store, StoreError};

use super::ExportError;
use crate::{custody::OwnRow as _, log::Log, rows::RowFinding};

/// What it takes to keep how far sinks are.
#[derive(Clone, Debug)]
pub(crate) struct Cursors {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) key: Arc<RowKey>,
    pub(crate) log: Log,
}

/// How far one sink is: the index of the first record that it has not acknowledged.
#[derive(Debug)]
pub(super) struct Cursor {
    name: String,
    cursors: Cursors,
    /// Where it stood when this process last put it down or found it genuine.
    trusted: Option<u64>,
}

impl Cursor {
    pub(super) fn of(name: &str, cursors: Cursors) -> Self {
        Self { name: name.to_owned(), cursors, trusted: None }
    }

    /// Where it stands; `None` for a new sink. One that was changed past the broker, or taken away, stands
    /// where it was last seen, or else at the beginning: records are sent twice then, and none is left out.
    pub(super) async fn read(&mut self) -> Result<Option<u64>, ExportError> {
        match self.cursors.store.sink(&self.name).await {
            Ok(Some(row)) if row.is_genuine(&self.cursors.key) => {
                self.trusted = Some(row.next_index);
                Ok(self.trusted)
            }
            Ok(None) => Ok(self.trusted),
            Ok(Some(_)) | Err(StoreError::Corrupt(_)) => self.distrust().await.map(Some),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves it.
    pub(super) async fn put(&mut self, next_index: u64) -> Result<(), ExportError> {
        let row = SinkRow { name: self.name.clone(), next_index, row_mac: [0; 32] };
        self.cursors.store.put_sink(&row.sealed(&self.cursors.key)).await?;
        self.trusted = Some(next_index);
        Ok(())
    }

    async fn distrust(&mut self) -> Result<u64, ExportError> {
        let next = self.trusted.unwrap_or(0);
        let finding = RowFinding {
            reason: Reason::RowChanged,
            table: "sink",
            name: format!("sink {}", self.name),
            tenant: String::new(),
            what: format!("its MAC is wrong: records are sent again from {next}"),
        };
        finding.tell();
        // On record before it is put right, so that it does not go unseen.
        let recorded = self.cursors.log.record_change(finding.record()).await;
        recorded.map_err(|why| ExportError::Log(Box::new(why.into())))?;
        self.put(next).await?;
        Ok(next)
    }
}
