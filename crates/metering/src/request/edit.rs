use std::ops::Range;

/// Other bytes in the place of a part of a body; an empty part is an insertion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edit {
    /// The part, in the body as it came.
    pub at: Range<usize>,
    /// What stands there instead.
    pub with: Vec<u8>,
}

/// The body with these edits made, which do not overlap. Parts that are not in the body are not
/// replaced.
pub fn apply(body: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut edits: Vec<_> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
    let more: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut edited = Vec::with_capacity(body.len() + more);
    let mut done = 0;
    for edit in edits {
        let Some(before) = body.get(done..edit.at.start) else { continue };
        if edit.at.end > body.len() {
            continue;
        }
        edited.extend_from_slice(before);
        edited.extend_from_slice(&edit.with);
        done = edit.at.end.max(edit.at.start);
    }
    edited.extend_from_slice(body.get(done..).unwrap_or_default());
    edited
}
