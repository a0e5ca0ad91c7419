use thiserror::Error;

use crate::{BUNDLE_WIDTH, Frontier, Hash, HashTile, base64, peaks};

/// Where an export of a pruned log begins: the tree of what was pruned, without the records. With it
/// the rest is verified against the same checkpoint as the whole.
///
/// It needs no signature: other hashes than the tree's lead to another root than the one that was
/// signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PrunedStart(Frontier);

/// A text that says of no log where it begins.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the start of the pruned log is malformed")]
pub struct MalformedStart;

impl PrunedStart {
    /// Takes it from the audit path of the first record that is kept, in the tree of which that record
    /// is the last: its hashes are the roots of the perfect subtrees before it.
    pub fn from_path(first_index: u64, path: &[Hash]) -> Result<Self, MalformedStart> {
        Self::new(first_index, path.iter().rev().copied().collect())
    }

    fn new(size: u64, peaks: Vec<Hash>) -> Result<Self, MalformedStart> {
        if size == 0 || !size.is_multiple_of(BUNDLE_WIDTH) {
            return Err(MalformedStart);
        }
        Frontier::from_peaks(size, peaks).map(Self).map_err(|_| MalformedStart)
    }

    /// Reads what [`PrunedStart::encode`] wrote, and nothing else.
    pub fn parse(text: &str) -> Result<Self, MalformedStart> {
        let mut lines = text.strip_suffix('\n').ok_or(MalformedStart)?.split('\n');
        let size = lines.next().and_then(base64::decimal).ok_or(MalformedStart)?;
        let peaks: Option<Vec<Hash>> = lines.map(base64::decode_hash).collect();
        Self::new(size, peaks.ok_or(MalformedStart)?)
    }

    /// The text of the file `pruned`.
    pub fn encode(&self) -> String {
        let mut text = format!("{}\n", self.first_index());
        for peak in self.0.peaks() {
            text.push_str(&base64::encode(peak));
            text.push('\n');
        }
        text
    }

    /// The first record that is kept.
    pub fn first_index(&self) -> u64 {
        self.0.size()
    }

    /// Whether these hashes, of a tile that reaches into what was pruned, are what the tree has there.
    /// Those of what is kept are not looked at; of a tile before them all, nothing is known: `false`.
    pub fn agrees_with(&self, tile: HashTile, hashes: &[Hash]) -> bool {
        let count = (self.first_index() >> tile.height()).saturating_sub(tile.first());
        let count = usize::try_from(count.min(tile.width)).unwrap_or(usize::MAX);
        let Some(pruned) = hashes.get(..count) else { return false };
        let mut tree = Frontier::default();
        for hash in pruned {
            tree.push(*hash);
        }
        // A tile that lies wholly in what was pruned is not the one that these peaks are of.
        count == 0 || tree.peaks() == self.peaks_in(tile.level)
    }

    /// The roots of the subtrees whose nodes are in the open tile of a level.
    pub(crate) fn peaks_in(&self, level: u32) -> Vec<Hash> {
        let nodes = peaks(self.first_index()).into_iter().zip(self.0.peaks());
        nodes.filter(|(node, _)| node.level / 8 == level).map(|(_, hash)| *hash).collect()
    }

    /// The tree of what was pruned.
    pub(crate) fn frontier(&self) -> &Frontier {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf_hash;

    #[test]
    fn a_start_reads_back_as_written_and_nothing_else_does() {
        let mut frontier = Frontier::default();
        for n in 0..768_u32 {
            frontier.push(leaf_hash(&n.to_be_bytes()));
        }
        let start = PrunedStart(frontier);
        let text = start.encode();
        assert_eq!(PrunedStart::parse(&text), Ok(start.clone()));
        assert_eq!(start.first_index(), 768);
        for wrong in [
            String::new(),
            text.trim_end().to_owned(),
            format!("{text}\n"),
            text.replacen("768", "0768", 1),
            text.replacen("768", "512", 1),
            text.replacen("768", "769", 1),
            text.replacen('=', "", 1),
            "0\n".to_owned(),
        ] {
            assert_eq!(PrunedStart::parse(&wrong), Err(MalformedStart), "{wrong:?}");
        }
    }
}
