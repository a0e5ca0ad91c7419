use std::fmt::Write as _;

use crate::{BUNDLE_WIDTH, Bundle, HashTile, base64::decimal};

/// What a log publishes below its address, <https://c2sp.org/tlog-tiles>.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resource {
    /// The newest signed checkpoint.
    Checkpoint,
    /// Entries.
    Entries(Bundle),
    /// Hashes of the tree.
    Hashes(HashTile),
}

impl Resource {
    /// Reads a path without its leading slash; only the one spelling that the specification has.
    pub fn parse(path: &str) -> Option<Self> {
        if path == "checkpoint" {
            return Some(Self::Checkpoint);
        }
        let (kind, place) = path.strip_prefix("tile/")?.split_once('/')?;
        let (place, width) = match place.split_once(".p/") {
            Some((place, width)) => (place, decimal(width)?),
            None => (place, BUNDLE_WIDTH),
        };
        let mut digits = String::new();
        for group in place.split('/') {
            digits.push_str(group.strip_prefix('x').unwrap_or(group));
        }
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let index = digits.parse().ok()?;
        let resource = if kind == "entries" {
            Self::Entries(Bundle { index, width })
        } else {
            let level = u32::try_from(decimal(kind)?).ok()?;
            Self::Hashes(HashTile { level, index, width })
        };
        // Whatever else could be read this way is another spelling, or no tile at all.
        (resource.path() == path && (1..=BUNDLE_WIDTH).contains(&width)).then_some(resource)
    }

    /// Its path below the log's address.
    pub fn path(self) -> String {
        match self {
            Self::Checkpoint => "checkpoint".to_owned(),
            Self::Entries(bundle) => bundle.path(),
            Self::Hashes(tile) => tile.path(),
        }
    }
}

/// The path of a tile: its index in groups of three digits, and its width if it is partial.
pub(crate) fn tile_path(prefix: &str, index: u64, width: u64) -> String {
    let digits = index.to_string();
    let padded = format!("{digits:0>width$}", width = digits.len().next_multiple_of(3));
    let mut path = prefix.to_owned();
    let groups = padded.len() / 3;
    for (group, digits) in padded.as_bytes().chunks(3).enumerate() {
        path.push_str(if group + 1 < groups { "/x" } else { "/" });
        path.extend(digits.iter().map(|digit| char::from(*digit)));
    }
    if width < BUNDLE_WIDTH {
        // Writing to a `String` cannot fail.
        let _ = write!(path, ".p/{width}");
    }
    path
}

/// Whether so many things hold the tile at this index with this width.
pub(crate) fn fits(index: u64, width: u64, things: u64) -> bool {
    let end = index.checked_mul(BUNDLE_WIDTH).and_then(|first| first.checked_add(width));
    end.is_some_and(|end| end <= things)
}
