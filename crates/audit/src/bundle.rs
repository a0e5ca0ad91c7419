use thiserror::Error;

use crate::tile_path::{fits, tile_path};

/// How many entries a full bundle, or hashes a full tile, holds.
pub const BUNDLE_WIDTH: u64 = 256;

/// A file of an export: consecutive entries, as <https://c2sp.org/tlog-tiles> lays them out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// Its place: the first entry is `256 * index`.
    pub index: u64,
    /// How many entries it holds, 1 to 256.
    pub width: u64,
}

/// A file that is not the bundle it should be, or an entry too long for one.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the entry bundle is malformed")]
pub struct MalformedBundle;

impl Bundle {
    /// The bundles of a log of this size, in order.
    pub fn covering(size: u64) -> impl Iterator<Item = Self> {
        let (full, partial) = (size / BUNDLE_WIDTH, size % BUNDLE_WIDTH);
        let last = (partial > 0).then_some(Self { index: full, width: partial });
        (0..full).map(|index| Self { index, width: BUNDLE_WIDTH }).chain(last)
    }

    /// The index of its first entry.
    pub fn first_entry(self) -> u64 {
        self.index.saturating_mul(BUNDLE_WIDTH)
    }

    /// Its path below the export's folder, such as `tile/entries/x001/x234/067`.
    pub fn path(self) -> String {
        tile_path("tile/entries", self.index, self.width)
    }

    /// Whether the log of this size has these entries.
    pub fn is_within(self, size: u64) -> bool {
        fits(self.index, self.width, size)
    }

    /// The bodies in the file's bytes: exactly as many as its width, and nothing after them.
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<&[u8]>, MalformedBundle> {
        let mut bodies = Vec::new();
        let mut rest = bytes;
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let (body, after) = after.split_at_checked(length).ok_or(MalformedBundle)?;
            bodies.push(body);
            rest = after;
        }
        if !rest.is_empty() || u64::try_from(bodies.len()) != Ok(self.width) {
            return Err(MalformedBundle);
        }
        Ok(bodies)
    }
}

/// The bytes of a bundle: each body after its length as two bytes, big-endian.
pub fn encode_bundle<B: AsRef<[u8]>>(
    bodies: impl IntoIterator<Item = B>,
) -> Result<Vec<u8>, MalformedBundle> {
    let mut bytes = Vec::new();
    for body in bodies {
        let body = body.as_ref();
        let length = u16::try_from(body.len()).map_err(|_| MalformedBundle)?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(body);
    }
    Ok(bytes)
}
