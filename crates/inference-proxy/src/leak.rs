use std::fmt;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use domain::Secret;
use memchr::memmem::Finder;
use zeroize::Zeroizing;

/// Looks for a leased secret, plain or in a common encoding, in what a provider answers. It is made
/// for one call and wiped with it.
pub(crate) struct Leak {
    forms: Vec<Form>,
    /// Which bytes occur in any form: an answer's piece seldom ends in one.
    alphabet: [bool; 256],
    /// The end of the last piece, held back because it may be the beginning of a form.
    held: Bytes,
}

struct Form {
    text: Zeroizing<Vec<u8>>,
    finder: Finder<'static>,
}

/// The secret was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Leaked;

impl Leak {
    pub(crate) fn new(secret: &Secret) -> Self {
        let forms: Vec<Form> = forms(secret.expose()).into_iter().map(Form::new).collect();
        let mut alphabet = [false; 256];
        for byte in forms.iter().flat_map(|form| form.text.iter()) {
            if let Some(occurs) = alphabet.get_mut(usize::from(*byte)) {
                *occurs = true;
            }
        }
        Self { forms, alphabet, held: Bytes::new() }
    }

    /// Whether a whole text holds the secret.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        self.forms.iter().any(|form| form.finder.find(text).is_some())
    }

    /// Lets a piece of an answer pass, less an end that may be the beginning of the secret; that goes
    /// in front of the next piece. Other pieces go as they came, uncopied.
    pub(crate) fn pass(&mut self, piece: Bytes) -> Result<Bytes, Leaked> {
        let mut piece = self.after_held(piece);
        if self.is_in(&piece) {
            return Err(Leaked);
        }
        let held = self.suspicious_end(&piece);
        if held > 0 {
            self.held = piece.split_off(piece.len() - held);
        }
        Ok(piece)
    }

    /// What is still held back when the answer is over.
    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held)
    }

    pub(crate) fn holds_back(&self) -> bool {
        !self.held.is_empty()
    }

    fn after_held(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() {
            return piece;
        }
        let mut joined = BytesMut::with_capacity(self.held.len() + piece.len());
        joined.extend_from_slice(&self.rest());
        joined.extend_from_slice(&piece);
        joined.freeze()
    }

    /// How long the longest end is that begins a form.
    fn suspicious_end(&self, piece: &[u8]) -> usize {
        let occurs = |byte: &u8| self.alphabet.get(usize::from(*byte)).copied().unwrap_or(true);
        if !piece.last().is_some_and(occurs) {
            return 0;
        }
        self.forms.iter().map(|form| form.overlap(piece)).max().unwrap_or(0)
    }
}

impl Form {
    fn new(text: Zeroizing<Vec<u8>>) -> Self {
        let finder = Finder::new(&*text).into_owned();
        Self { text, finder }
    }

    fn overlap(&self, piece: &[u8]) -> usize {
        let longest = self.text.len().saturating_sub(1).min(piece.len());
        let begins = |length: &usize| {
            self.text.get(..*length).is_some_and(|beginning| piece.ends_with(beginning))
        };
        (1..=longest).rev().find(begins).unwrap_or(0)
    }
}

impl fmt::Debug for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leak(…)")
    }
}

/// The ways in which a secret is written down. Too short a one would be found by chance.
fn forms(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    if secret.len() < SHORTEST {
        return Vec::new();
    }
    let mut forms = vec![Zeroizing::new(secret.to_vec())];
    let mut add = |form: Vec<u8>| {
        let form = Zeroizing::new(form);
        if form.len() >= SHORTEST && !forms.contains(&form) {
            forms.push(form);
        }
    };
    add(hex(secret, b"0123456789abcdef"));
    add(hex(secret, b"0123456789ABCDEF"));
    for shift in 0..3 {
        add(base64(&STANDARD_NO_PAD, secret, shift));
        add(base64(&URL_SAFE_NO_PAD, secret, shift));
    }
    add(percent_encoded(secret));
    add(secret.iter().rev().copied().collect());
    forms
}

fn hex(secret: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    let digit = |value: u8| digits.get(usize::from(value & 15)).copied().unwrap_or(b'0');
    secret.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The characters that depend on nothing but the secret when it stands `shift` bytes after a
/// multiple of three.
fn base64(engine: &impl base64::Engine, secret: &[u8], shift: usize) -> Vec<u8> {
    let skipped = (3 - shift) % 3;
    let whole = (secret.len() - skipped) / 3 * 3;
    let inner = secret.get(skipped..skipped + whole).unwrap_or_default();
    engine.encode(inner).into_bytes()
}

fn percent_encoded(secret: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(3 * secret.len());
    for byte in secret {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(*byte);
        } else {
            encoded.push(b'%');
            encoded.extend(hex(&[*byte], b"0123456789ABCDEF"));
        }
    }
    encoded
}

const SHORTEST: usize = 12;

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    const SECRET: &[u8] = b"sk-proj-abcdefghij/klmnop+qrstuvwxyz";

    fn leak() -> Leak {
        Leak::new(&Secret::new(SECRET.to_vec()))
    }

    /// Passes a text in pieces; what came through, or where it was stopped.
    fn pass(text: &[u8], size: usize) -> Result<Vec<u8>, Vec<u8>> {
        let mut leak = leak();
        let mut through = Vec::new();
        for piece in text.chunks(size) {
            match leak.pass(Bytes::copy_from_slice(piece)) {
                Ok(piece) => through.extend_from_slice(&piece),
                Err(Leaked) => return Err(through),
            }
        }
        through.extend_from_slice(&leak.rest());
        Ok(through)
    }

    #[test]
    fn an_innocent_answer_passes_byte_for_byte() {
        let text =
            b"data: {\"a\":\"sk-proj-abc sk-proj-abcdefghij sk sk-\"}\n\ns sk-proj-abcdefghi";
        for size in 1..=text.len() {
            assert_eq!(pass(text, size).unwrap(), text, "{size}");
        }
    }

    #[test]
    fn nothing_of_the_secret_passes_however_it_is_cut() {
        let text = [&b"data: "[..], SECRET, b" end"].concat();
        for size in 1..=text.len() {
            let through = pass(&text, size).unwrap_err();
            assert!(b"data: ".starts_with(&through), "{size}: {}", through.len());
        }
    }

    #[test]
    fn common_encodings_are_found() {
        let hex = SECRET.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let reversed: Vec<u8> = SECRET.iter().rev().copied().collect();
        let mut forms = vec![
            hex.clone().into_bytes(),
            hex.to_uppercase().into_bytes(),
            reversed,
            b"sk-proj-abcdefghij%2Fklmnop%2Bqrstuvwxyz".to_vec(),
        ];
        for before in ["", "a", "ab", "abc", "Bearer "] {
            let text = [before.as_bytes(), SECRET, b"xyz"].concat();
            forms.push(STANDARD.encode(&text).into_bytes());
            forms.push(URL_SAFE_NO_PAD.encode(&text).into_bytes());
        }
        for form in forms {
            for size in [1, 5, 1000] {
                assert!(pass(&form, size).is_err(), "{} by {size}", String::from_utf8_lossy(&form));
            }
        }
    }

    #[test]
    fn pieces_that_cannot_begin_the_secret_are_not_held_back() {
        let mut leak = leak();
        let piece = Bytes::from_static(b"data: {\"x\":1}\n\n");
        let passed = leak.pass(piece.clone()).unwrap();
        assert_eq!(passed.as_ptr(), piece.as_ptr());
        assert_eq!(passed.len(), piece.len());
        assert!(!leak.holds_back());
    }

    #[test]
    fn a_secret_too_short_to_mean_anything_is_not_looked_for() {
        assert!(!Leak::new(&Secret::new(b"data".to_vec())).is_in(b"data: data"));
    }
}
