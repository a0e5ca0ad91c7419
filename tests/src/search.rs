use std::{
    fs,
    path::{Path, PathBuf},
};

use aho_corasick::AhoCorasick;

use crate::huffman::huffman;

/// The forms in which secrets may have been written down by mistake.
#[derive(Debug)]
pub struct Forms {
    forms: Vec<(&'static str, Vec<u8>)>,
    search: AhoCorasick,
}

impl Forms {
    /// Of a secret of 20 bytes at the least: whole, its middle, and encoded.
    pub fn of(secret: &str) -> Self {
        Self::of_all(&[secret])
    }

    /// Of several of them.
    pub fn of_all(secrets: &[&str]) -> Self {
        Self::new(secrets.iter().flat_map(|secret| forms_of(secret)).collect())
    }

    /// Of something short that is no secret, just as it is.
    pub fn plain(text: &str) -> Self {
        Self::new(vec![("raw", text.as_bytes().to_vec())])
    }

    fn new(forms: Vec<(&'static str, Vec<u8>)>) -> Self {
        let search = AhoCorasick::new(forms.iter().map(|(_, form)| form)).unwrap();
        Self { forms, search }
    }

    /// The form that stands in these bytes, if one does.
    pub fn find(&self, bytes: &[u8]) -> Option<&'static str> {
        self.search.find(bytes).map(|found| self.forms[found.pattern().as_usize()].0)
    }

    /// The same, with what stands around it, for whoever has to find out how it came there.
    pub fn show(&self, bytes: &[u8]) -> Option<String> {
        let found = self.search.find(bytes)?;
        let (name, _) = self.forms[found.pattern().as_usize()];
        let around = found.start().saturating_sub(200)..bytes.len().min(found.end() + 200);
        Some(format!("{name}: {}", bytes[around].escape_ascii()))
    }

    /// Each form with its bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.forms.iter().map(|(name, bytes)| (*name, &**bytes))
    }
}

fn forms_of(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = secret.as_bytes();
    assert!(bytes.len() >= 20, "parts of a shorter one may stand somewhere by chance");
    let middle = bytes.len() / 2;
    let decimal = bytes.iter().map(u8::to_string).collect::<Vec<_>>();
    let quoted = serde_json::to_string(secret).unwrap();
    let mut forms = vec![
        ("raw", bytes.to_vec()),
        ("a part", bytes[middle - 8..middle + 8].to_vec()),
        ("hex", hex(bytes, false)),
        ("upper-case hex", hex(bytes, true)),
        ("reversed", bytes.iter().rev().copied().collect()),
        ("numbers", decimal.join(", ").into_bytes()),
        ("narrow numbers", decimal.join(",").into_bytes()),
        ("UTF-16", secret.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("percent-encoded", percent_encoded(bytes)),
        ("JSON", quoted.trim_matches('"').as_bytes().to_vec()),
    ];
    for skipped in 0..3 {
        // Whole groups of three bytes only: their base64 does not depend on what stands around.
        let groups = &bytes[skipped..];
        let groups = &groups[..groups.len() / 3 * 3];
        forms.push(("base64", base64(groups, *b"+/")));
        forms.push(("URL-safe base64", base64(groups, *b"-_")));
    }
    forms.extend((0..8).map(|skipped| ("a compressed header", huffman(bytes, skipped))));
    forms
}

/// The files below a folder that hold the secret, with the form in which they do, and how many files
/// were read. Files that vanish meanwhile are left out.
pub fn files_with(forms: &Forms, folder: &Path) -> (Vec<(PathBuf, &'static str)>, usize) {
    let (mut found, mut read) = (Vec::new(), 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                read += 1;
                found.extend(forms.find(&bytes).map(|form| (path, form)));
            }
        }
    }
    (found, read)
}

fn percent_encoded(bytes: &[u8]) -> Vec<u8> {
    let encode = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(*byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    bytes.iter().map(encode).collect::<String>().into_bytes()
}

fn hex(bytes: &[u8], upper: bool) -> Vec<u8> {
    let digit = |byte: &u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
    bytes.iter().map(digit).collect::<String>().into_bytes()
}

fn base64(groups: &[u8], last: [u8; 2]) -> Vec<u8> {
    let digits = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(last);
    let digits = digits.collect::<Vec<_>>();
    let encode = |group: &[u8]| {
        let bits = group.iter().fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| digits[(bits >> shift) & 63])
    };
    groups.chunks(3).flat_map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "sk-proj-0123456789/abcdefghijkl+mn\"opqrstuvwxyz";

    #[test]
    fn each_form_is_found_where_it_is_planted_and_nothing_where_it_is_not() {
        let forms = Forms::of(SECRET);
        for (name, form) in forms.iter() {
            let planted = [b"before ", form, b" after"].concat();
            assert!(forms.find(&planted).is_some(), "{name}");
        }
        assert_eq!(forms.find(&vec![0x5a; 100_000]), None);
    }

    #[test]
    fn base64_is_found_at_each_alignment() {
        let forms = Forms::of(SECRET);
        for before in ["", "a", "ab"] {
            let planted = format!("{before}{SECRET}tail");
            let mut bytes = planted.into_bytes();
            bytes.truncate(bytes.len() / 3 * 3);
            assert!(forms.find(&base64(&bytes, *b"+/")).is_some(), "after {before:?}");
        }
    }
}
