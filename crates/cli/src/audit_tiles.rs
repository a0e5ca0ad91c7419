use std::{fs, path::Path};

use audit::{Finding, HashTile, PrunedStart, TileFolder, leaf_hash};

use crate::{audit_verify::Folder, failure::Failure, files};

/// The hash tiles of an export, computed from its entries as they pass.
pub(crate) struct Tiles<'a> {
    directory: &'a Path,
    folder: TileFolder,
}

/// Compares an export's tiles with its entries.
pub(crate) struct TileCheck<'a> {
    tiles: TileFolder,
    place: Place<'a>,
    /// The first that is wrong.
    wrong: Option<Finding>,
}

/// Where tiles are, and which of them need not be there.
struct Place<'a> {
    folder: &'a Folder,
    /// Where the entries begin, if some are not there.
    start: Option<PrunedStart>,
    /// Where the log began when it was exported.
    first: u64,
}

impl<'a> Tiles<'a> {
    /// From the first entry on, or from where a pruned log begins.
    pub(crate) fn of(directory: &'a Path, start: Option<&PrunedStart>) -> Self {
        Self { directory, folder: start.map(TileFolder::after).unwrap_or_default() }
    }

    /// Takes the next entry and writes the tiles that it fills.
    pub(crate) fn push(&mut self, body: &[u8]) -> Result<(), Failure> {
        let directory = self.directory;
        self.folder.push(leaf_hash(body), |tile, bytes| keep(directory, tile, bytes))
    }

    /// Writes the tiles that are not full.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.folder.finish(|tile, bytes| keep(self.directory, tile, bytes))
    }
}

impl<'a> TileCheck<'a> {
    pub(crate) fn of(folder: &'a Folder) -> Result<Self, Failure> {
        let start = folder.start()?;
        let tiles = start.as_ref().map(TileFolder::after).unwrap_or_default();
        let first = folder.pruned()?.map_or(0, |pruned| pruned.first_index());
        Ok(Self { tiles, place: Place { folder, start, first }, wrong: None })
    }

    /// Takes the next entry. What is found waits for [`TileCheck::finish`]: a fault in the entries
    /// themselves says more than the tile over them.
    pub(crate) fn push(&mut self, body: &[u8]) {
        if self.wrong.is_none() {
            let place = &self.place;
            let compared =
                self.tiles.push(leaf_hash(body), |tile, bytes| place.compare(tile, bytes));
            self.wrong = compared.err();
        }
    }

    /// Compares the tiles that are not full, and tells the first that is missing or wrong.
    pub(crate) fn finish(self) -> Result<(), Finding> {
        if let Some(finding) = self.wrong {
            return Err(finding);
        }
        self.tiles.finish(|tile, bytes| self.place.compare(tile, bytes))
    }
}

impl Place<'_> {
    /// A tile over what was pruned need not be there, but must be right if it is.
    fn compare(&self, tile: HashTile, bytes: &[u8]) -> Result<(), Finding> {
        let path = self.folder.find(&tile.path());
        let Some(found) = path.and_then(|path| fs::read(path).ok()) else {
            let begins = tile.nodes().next().map_or(0, |node| node.range().start);
            let excused = begins < self.first;
            return if excused { Ok(()) } else { Err(Finding::TileMissing { tile }) };
        };
        let same = match (&self.start, tile.decode(&found)) {
            (Some(start), Ok(hashes)) if found.len() > bytes.len() => {
                found.ends_with(bytes) && start.agrees_with(tile, hashes)
            }
            _ => found == bytes,
        };
        if same { Ok(()) } else { Err(Finding::TileMismatch { tile }) }
    }
}

fn keep(directory: &Path, tile: HashTile, bytes: &[u8]) -> Result<(), Failure> {
    let path = directory.join(tile.path());
    // What a tile needs of a part that was pruned cannot be computed any more.
    let is_whole = tile.decode(bytes).is_ok();
    if !is_whole || fs::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    files::write(&path, bytes)
}
