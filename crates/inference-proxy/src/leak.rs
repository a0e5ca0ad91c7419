use std::fmt;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use domain::Secret;
use memchr::{memchr, memmem::Finder};
use zeroize::Zeroizing;

use escapes::Unescaped;

mod escapes;

/// Looks for a leased secret, plain or in a common encoding, in what a provider answers. It is made
/// for one call and wiped with it.
pub(crate) struct Leak {
    forms: Vec<Form>,
    /// UTF-16 from the first byte that is not zero to the last, whichever half of a character is
    /// written first. Looked for only where there is a zero, which text has none of.
    wide: Option<Form>,
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
        let secret = secret.expose();
        let forms: Vec<Form> = forms(secret).into_iter().map(Form::new).collect();
        let wide = Some(wide(secret)).filter(|_| !forms.is_empty()).map(Form::new);
        let mut alphabet = [false; 256];
        for byte in forms.iter().flat_map(|form| form.text.iter()) {
            if let Some(occurs) = alphabet.get_mut(usize::from(*byte)) {
                *occurs = true;
            }
        }
        Self { forms, wide, alphabet, held: Bytes::new() }
    }

    /// Whether a whole text holds the secret.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        self.is_plain_in(text)
            || Unescaped::of(text).is_some_and(|unescaped| self.is_plain_in(unescaped.bytes()))
    }

    fn is_plain_in(&self, text: &[u8]) -> bool {
        let is_wide = |wide: &Form| wide.finder.find(text).is_some();
        self.forms.iter().any(|form| form.finder.find(text).is_some())
            || (memchr(0, text).is_some() && self.wide.as_ref().is_some_and(is_wide))
    }

    /// Lets a piece of an answer pass, less an end that may be the beginning of the secret; that goes
    /// in front of the next piece. Other pieces go as they came, uncopied.
    pub(crate) fn pass(&mut self, piece: Bytes) -> Result<Bytes, Leaked> {
        let mut piece = self.after_held(piece);
        let unescaped = Unescaped::of(&piece);
        let hides_it = |it: &Unescaped| self.is_plain_in(it.bytes());
        if self.is_plain_in(&piece) || unescaped.as_ref().is_some_and(hides_it) {
            return Err(Leaked);
        }
        let escaped = unescaped.map_or(0, |unescaped| {
            let plain = self.suspicious_end(unescaped.bytes());
            piece.len() - unescaped.start_of_last(plain)
        });
        let held = self.suspicious_end(&piece).max(escaped);
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
        self.held() > 0
    }

    /// How many bytes are held back.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    fn all(&self) -> impl Iterator<Item = &Form> {
        self.forms.iter().chain(&self.wide)
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
        if piece.iter().rev().take(2).any(|byte| *byte == 0) {
            return self.all().map(|form| form.overlap(piece)).max().unwrap_or(0);
        }
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
    if secret.len() < Secret::SHORTEST_SEARCHED {
        return Vec::new();
    }
    let mut forms = vec![Zeroizing::new(secret.to_vec())];
    let mut add = |form: Vec<u8>| {
        let form = Zeroizing::new(form);
        if form.len() >= Secret::SHORTEST_SEARCHED && !forms.contains(&form) {
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

/// Each byte followed by a zero, but for the last. Secrets are ASCII, as headers are.
fn wide(secret: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut wide: Vec<u8> = secret.iter().flat_map(|byte| [*byte, 0]).collect();
    wide.pop();
    Zeroizing::new(wide)
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
    fn wide_characters_are_found_however_they_are_cut() {
        let little: Vec<u8> = SECRET.iter().flat_map(|byte| [*byte, 0]).collect();
        let big: Vec<u8> = SECRET.iter().flat_map(|byte| [0, *byte]).collect();
        let innocent: Vec<u8> = b"sk-proj- sk-proj-abc".iter().flat_map(|it| [*it, 0]).collect();
        for form in [little, big] {
            for size in 1..=form.len() {
                let text = [&innocent[..], &form].concat();
                let through = pass(&text, size).unwrap_err();
                assert!(innocent.starts_with(&through) || through.len() == innocent.len() + 1);
            }
        }
        for size in 1..=innocent.len() {
            assert_eq!(pass(&innocent, size).unwrap(), innocent, "{size}");
        }
    }

    #[test]
    fn escapes_of_json_hide_nothing_however_they_are_cut() {
        let each = |escaped: fn(usize, u8) -> bool, upper: bool| {
            let one = |(at, byte): (usize, &u8)| match (escaped(at, *byte), upper) {
                (false, _) => char::from(*byte).to_string(),
                (true, false) => format!("\\u{byte:04x}"),
                (true, true) => format!("\\u{byte:04X}"),
            };
            SECRET.iter().enumerate().map(one).collect::<String>()
        };
        let forms = [
            each(|_, _| true, false),
            each(|_, _| true, true),
            each(|at, _| at == 0, false),
            each(|at, _| at % 3 == 1, true),
            each(|_, byte| !byte.is_ascii_alphanumeric(), false),
            String::from_utf8_lossy(SECRET).replace('/', "\\/"),
        ];
        for form in forms {
            let text = format!("{{\"a\":\"{form}\"}}");
            for size in 1..=text.len() {
                let through = pass(text.as_bytes(), size).unwrap_err();
                assert!(b"{\"a\":\"".starts_with(&through), "{form} by {size}");
            }
            assert!(leak().is_in(text.as_bytes()));
        }
        let innocent =
            r#"{"a":"\u0073\u006b-\u0070roj \u00e9\ud83d\ude00 \\u0073 s\/k \"sk\u002d"}\u00"#;
        for size in 1..=innocent.len() {
            let through = pass(innocent.as_bytes(), size).unwrap();
            assert_eq!(through, innocent.as_bytes(), "{size}");
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
