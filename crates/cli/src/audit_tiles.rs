use std::{fs, path::Path};

use audit::{Finding, HashTile, TileFolder, leaf_hash};

use crate::{failure::Failure, files};

/// The hash tiles of an export, computed from its entries as they pass.
pub(crate) struct Tiles<'a> {
    directory: &'a Path,
    folder: TileFolder,
}

/// Compares an export's tiles with its entries.
pub(crate) struct TileCheck<'a> {
    tiles: Tiles<'a>,
    /// The first that is wrong.
    wrong: Option<Finding>,
}

impl<'a> Tiles<'a> {
    pub(crate) fn of(directory: &'a Path) -> Self {
        Self { directory, folder: TileFolder::default() }
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
    pub(crate) fn of(directory: &'a Path) -> Self {
        Self { tiles: Tiles::of(directory), wrong: None }
    }

    /// Takes the next entry. What is found waits for [`TileCheck::finish`]: a fault in the entries
    /// themselves says more than the tile over them.
    pub(crate) fn push(&mut self, body: &[u8]) {
        if self.wrong.is_none() {
            let directory = self.tiles.directory;
            let compared = self
                .tiles
                .folder
                .push(leaf_hash(body), |tile, bytes| compare(directory, tile, bytes));
            self.wrong = compared.err();
        }
    }

    /// Compares the tiles that are not full, and tells the first that is missing or wrong.
    pub(crate) fn finish(self) -> Result<(), Finding> {
        if let Some(finding) = self.wrong {
            return Err(finding);
        }
        let directory = self.tiles.directory;
        self.tiles.folder.finish(|tile, bytes| compare(directory, tile, bytes))
    }
}

fn keep(directory: &Path, tile: HashTile, bytes: &[u8]) -> Result<(), Failure> {
    let path = directory.join(tile.path());
    if fs::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    files::write(&path, bytes)
}

fn compare(directory: &Path, tile: HashTile, bytes: &[u8]) -> Result<(), Finding> {
    match fs::read(directory.join(tile.path())) {
        Ok(found) if found == bytes => Ok(()),
        Ok(_) => Err(Finding::TileMismatch { tile }),
        Err(_) => Err(Finding::TileMissing { tile }),
    }
}
