use std::{fmt, mem};

use thiserror::Error;

use crate::{
    BUNDLE_WIDTH, Frontier, Hash, Node, PrunedStart,
    tile_path::{fits, tile_path},
};

/// A file of hashes of the tree, as <https://c2sp.org/tlog-tiles> lays them out: consecutive nodes of
/// one height.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HashTile {
    /// Its level: the nodes have the height `8 * level`.
    pub level: u32,
    /// Its place among those of its level.
    pub index: u64,
    /// How many hashes it holds, 1 to 256.
    pub width: u64,
}

/// A file that is not the tile it should be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the hash tile is malformed")]
pub struct MalformedTile;

/// Computes the tiles of a tree from its leaves. It holds the open tile of each level, 256 hashes
/// each at most.
#[derive(Clone, Debug, Default)]
pub struct TileFolder {
    levels: Vec<Level>,
}

#[derive(Clone, Debug, Default)]
struct Level {
    index: u64,
    /// The roots of what was pruned of the open tile.
    pruned: Frontier,
    hashes: Vec<Hash>,
}

impl HashTile {
    /// The tiles of a log of this size, the lowest level first.
    pub fn covering(size: u64) -> impl Iterator<Item = Self> {
        (0..8_u32).flat_map(move |level| {
            let nodes = size >> (8 * level);
            let (full, partial) = (nodes / BUNDLE_WIDTH, nodes % BUNDLE_WIDTH);
            let last = (partial > 0).then_some(Self { level, index: full, width: partial });
            (0..full).map(move |index| Self { level, index, width: BUNDLE_WIDTH }).chain(last)
        })
    }

    /// Its path below the log's address, such as `tile/0/x001/x234/067`.
    pub fn path(self) -> String {
        tile_path(&format!("tile/{}", self.level), self.index, self.width)
    }

    /// Whether the log of this size has these hashes.
    pub fn is_within(self, size: u64) -> bool {
        self.level < 8 && fits(self.index, self.width, size >> (8 * self.level))
    }

    /// The nodes whose hashes it holds, in order.
    pub fn nodes(self) -> impl Iterator<Item = Node> {
        let (first, level) = (self.first(), self.height());
        (first..first.saturating_add(self.width)).map(move |index| Node { level, index })
    }

    /// The place of its first node among those of its height.
    pub fn first(self) -> u64 {
        self.index.saturating_mul(BUNDLE_WIDTH)
    }

    /// The height of its nodes.
    pub fn height(self) -> u32 {
        self.level.saturating_mul(8)
    }

    /// The hashes in the file's bytes: exactly as many as its width, and nothing after them.
    pub fn decode(self, bytes: &[u8]) -> Result<&[Hash], MalformedTile> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        let exact = rest.is_empty() && u64::try_from(hashes.len()) == Ok(self.width);
        if exact { Ok(hashes) } else { Err(MalformedTile) }
    }
}

impl fmt::Display for HashTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl TileFolder {
    /// Goes on where a pruned log begins. Of a tile that reaches into what was pruned it gives the
    /// bytes of what is kept only: fewer than the file has.
    pub fn after(start: &PrunedStart) -> Self {
        let levels = (0..8_u32).map_while(|level| {
            let nodes = start.first_index() >> (8 * level);
            let pruned = Frontier::from_peaks(nodes % BUNDLE_WIDTH, start.peaks_in(level));
            let pruned = pruned.unwrap_or_default();
            (nodes > 0).then(|| Level { index: nodes / BUNDLE_WIDTH, pruned, hashes: Vec::new() })
        });
        Self { levels: levels.collect() }
    }

    /// Takes the next leaf, and gives each tile that it fills with the bytes of its file.
    pub fn push<E>(
        &mut self,
        leaf: Hash,
        mut filled: impl FnMut(HashTile, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut hash = leaf;
        for level in 0.. {
            let Some(open) = self.open(level) else { return Ok(()) };
            open.hashes.push(hash);
            if open.width() != BUNDLE_WIDTH {
                return Ok(());
            }
            let hashes = mem::take(&mut open.hashes);
            let tile = HashTile { level, index: open.index, width: BUNDLE_WIDTH };
            open.index += 1;
            filled(tile, hashes.as_flattened())?;
            let mut tree = mem::take(&mut open.pruned);
            for hash in &hashes {
                tree.push(*hash);
            }
            hash = tree.root();
        }
        Ok(())
    }

    /// Gives the partial tiles of the tree as it stands.
    pub fn finish<E>(
        &self,
        mut partial: impl FnMut(HashTile, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for (level, open) in (0..).zip(&self.levels) {
            let width = open.width();
            if width > 0 {
                let tile = HashTile { level, index: open.index, width };
                partial(tile, open.hashes.as_flattened())?;
            }
        }
        Ok(())
    }

    fn open(&mut self, level: u32) -> Option<&mut Level> {
        let level = usize::try_from(level).ok()?;
        if level == self.levels.len() {
            self.levels.push(Level::default());
        }
        self.levels.get_mut(level)
    }
}

impl Level {
    fn width(&self) -> u64 {
        self.pruned.size() + u64::try_from(self.hashes.len()).unwrap_or(0)
    }
}
