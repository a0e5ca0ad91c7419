use std::{
    fs, io,
    path::{Path, PathBuf},
};

use audit::{Conflict, WitnessRefusal};
use sha2::{Digest as _, Sha256};

use crate::{
    WitnessError,
    files::{failed, replace},
};

/// Notes of logs that were not shown to fit together, a folder each with both of them in it.
#[derive(Debug)]
pub(crate) struct Evidence {
    folder: PathBuf,
}

/// Anyone who has a checkpoint can send a bad proof with it, so that these are few and leave room for
/// what proves something by itself.
const MOST_UNPROVED: usize = 64;
const MOST_FORKS: usize = 256;

impl Evidence {
    pub(crate) fn open(state: &Path) -> Result<Self, WitnessError> {
        let folder = state.join("evidence");
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        Ok(Self { folder })
    }

    /// Keeps both notes, once; gives the name under which they are, or nothing when there is no room.
    pub(crate) fn keep(
        &self,
        refusal: &WitnessRefusal,
        conflict: &Conflict,
    ) -> io::Result<Option<String>> {
        let (kind, most) =
            if refusal.is_fork() { (FORK, MOST_FORKS) } else { (UNPROVED, MOST_UNPROVED) };
        let refused = &conflict.refused;
        let latest = conflict.latest.as_ref().map_or("", |latest| latest.note.as_str());
        let digest = Sha256::new().chain_update(latest).chain_update(&refused.note).finalize();
        let digest = hex::encode(digest.get(..8).unwrap_or_default());
        let name = format!("{kind}-{}-{digest}", refused.checkpoint.size);
        let folder = self.folder.join(&name);
        if folder.join(REFUSED).exists() {
            return Ok(Some(name));
        }
        if self.list()?.iter().filter(|name| name.starts_with(kind)).count() >= most {
            return Ok(None);
        }
        fs::create_dir_all(&folder)?;
        if !latest.is_empty() {
            replace(&folder.join("cosigned"), latest.as_bytes())?;
        }
        // Last: where this is, both are.
        replace(&folder.join(REFUSED), refused.note.as_bytes())?;
        Ok(Some(name))
    }

    /// The names of all that is kept, in order.
    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().join(REFUSED).exists() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

const FORK: &str = "fork";
const UNPROVED: &str = "unproved";
const REFUSED: &str = "refused";
