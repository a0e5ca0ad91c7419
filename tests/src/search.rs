use std::{
    fs,
    path::{Path, PathBuf},
};

/// The forms in which a secret may have been written down by mistake.
#[derive(Debug)]
pub struct Forms(Vec<(&'static str, Vec<u8>)>);

impl Forms {
    /// Of a secret of 32 bytes at the least: whole, its middle, and encoded.
    pub fn of(secret: &str) -> Self {
        let bytes = secret.as_bytes();
        let middle = bytes.len() / 2;
        let decimal = bytes.iter().map(u8::to_string).collect::<Vec<_>>();
        let utf16 = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut forms = vec![
            ("raw", bytes.to_vec()),
            ("a part", bytes[middle - 8..middle + 8].to_vec()),
            ("hex", hex(bytes, false)),
            ("upper-case hex", hex(bytes, true)),
            ("reversed", bytes.iter().rev().copied().collect()),
            ("numbers", decimal.join(", ").into_bytes()),
            ("narrow numbers", decimal.join(",").into_bytes()),
            ("UTF-16", utf16),
        ];
        for skipped in 0..3 {
            // Whole groups of three bytes only: their base64 does not depend on what stands around.
            let groups = &bytes[skipped..];
            let groups = &groups[..groups.len() / 3 * 3];
            forms.push(("base64", base64(groups, *b"+/")));
            forms.push(("URL-safe base64", base64(groups, *b"-_")));
        }
        Self(forms)
    }

    /// The form that stands in these bytes, if one does.
    pub fn find(&self, bytes: &[u8]) -> Option<&'static str> {
        let found = |form: &[u8]| memchr::memmem::find(bytes, form).is_some();
        self.0.iter().find(|(_, form)| found(form)).map(|(name, _)| *name)
    }

    /// Each form with its bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (*name, &**bytes))
    }
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

    const SECRET: &str = "sk-proj-0123456789abcdefghijklmnopqrstuvwxyz";

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
