//! Walks through JSON that arrives in pieces, without parsing its values or keeping them.

use memchr::memchr2;

/// Is told of members and values as they pass. Depth 1 is inside the outermost object or array;
/// offsets count from the first byte fed.
pub(crate) trait Visit {
    /// A member's name, unescaped. Names longer than [`LONGEST_KEY`] come as an empty one.
    fn key(&mut self, depth: u32, key: &[u8]);

    /// A value's first byte.
    fn begin(&mut self, depth: u32, at: usize, first: u8);

    /// One past a value's last byte.
    fn end(&mut self, depth: u32, at: usize);
}

/// Where it is in the JSON.
#[derive(Debug)]
pub(crate) struct Walker {
    state: State,
    /// One bit a level, the innermost lowest: 1 for an object.
    levels: u128,
    depth: u32,
    offset: usize,
    key: Vec<u8>,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Value,
    /// A value, or the end of an array that has none.
    First,
    Key,
    /// A member's name, or the end of an object that has none.
    FirstKey,
    Colon,
    After,
    Text,
    TextEscape,
    Name,
    NameEscape,
    Scalar,
    Done,
    /// This is not JSON; nothing more is said of it.
    Lost,
}

/// Longer names are nobody's business here: six bytes for each letter of 40, were all escaped.
pub(crate) const LONGEST_KEY: usize = 240;

impl Walker {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Value,
            levels: 0,
            depth: 0,
            offset: 0,
            key: Vec::new(),
            escaped: false,
        }
    }

    /// Begins anew, at the next document.
    pub(crate) fn reset(&mut self) {
        self.state = State::Value;
        self.levels = 0;
        self.depth = 0;
        self.offset = 0;
    }

    /// How many bytes were fed.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Whether one whole value was seen.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether what was fed is not JSON.
    pub(crate) fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Takes the next piece.
    pub(crate) fn feed(&mut self, bytes: &[u8], visit: &mut impl Visit) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Text | State::Name => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    at += self.text(rest, self.offset + at, visit);
                }
                State::TextEscape => {
                    self.state = State::Text;
                    at += 1;
                }
                State::NameEscape => {
                    self.hold(&[byte]);
                    self.state = State::Name;
                    at += 1;
                }
                State::Scalar if is_scalar(byte) => at += 1,
                State::Scalar => {
                    // The byte is looked at again, as what follows.
                    self.state = State::After;
                    self.ended(self.offset + at, visit);
                }
                State::Lost => break,
                State::Value
                | State::First
                | State::Key
                | State::FirstKey
                | State::Colon
                | State::After
                | State::Done => {
                    if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                        self.structure(byte, self.offset + at, visit);
                    }
                    at += 1;
                }
            }
        }
        self.offset += bytes.len();
    }

    fn structure(&mut self, byte: u8, at: usize, visit: &mut impl Visit) {
        match (self.state, byte) {
            (State::First | State::After, b']') => self.close(false, at, visit),
            (State::FirstKey | State::After, b'}') => self.close(true, at, visit),
            (State::Key | State::FirstKey, b'"') => {
                self.key.clear();
                self.escaped = false;
                self.state = State::Name;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') => {
                self.state = if self.levels & 1 == 1 { State::Key } else { State::Value };
            }
            (State::Value | State::First, _) => self.value(byte, at, visit),
            _ => self.state = State::Lost,
        }
    }

    fn value(&mut self, byte: u8, at: usize, visit: &mut impl Visit) {
        visit.begin(self.depth, at, byte);
        self.state = match byte {
            b'"' => State::Text,
            b'{' | b'[' if self.depth < u128::BITS => {
                self.levels = (self.levels << 1) | u128::from(byte == b'{');
                self.depth += 1;
                if byte == b'{' { State::FirstKey } else { State::First }
            }
            _ if is_scalar(byte) => State::Scalar,
            _ => State::Lost,
        };
    }

    fn close(&mut self, object: bool, at: usize, visit: &mut impl Visit) {
        if self.depth == 0 || (self.levels & 1 == 1) != object {
            self.state = State::Lost;
            return;
        }
        self.levels >>= 1;
        self.depth -= 1;
        self.state = State::After;
        self.ended(at + 1, visit);
    }

    fn ended(&mut self, at: usize, visit: &mut impl Visit) {
        visit.end(self.depth, at);
        if self.depth == 0 {
            self.state = State::Done;
        }
    }

    /// Goes on to the end of a string's plain run: this is where what was said is.
    fn text(&mut self, rest: &[u8], at: usize, visit: &mut impl Visit) -> usize {
        let name = self.state == State::Name;
        let run = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        if name {
            self.hold(rest.get(..run).unwrap_or_default());
        }
        match rest.get(run) {
            None => return run,
            Some(b'"') if name => {
                self.state = State::Colon;
                self.named(visit);
            }
            Some(b'"') => {
                self.state = State::After;
                self.ended(at + run + 1, visit);
            }
            Some(_) if name => {
                self.escaped = true;
                self.hold(b"\\");
                self.state = State::NameEscape;
            }
            Some(_) => self.state = State::TextEscape,
        }
        run + 1
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = (LONGEST_KEY + 1).saturating_sub(self.key.len());
        self.key.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }

    fn named(&mut self, visit: &mut impl Visit) {
        if self.key.len() > LONGEST_KEY {
            visit.key(self.depth, b"");
        } else if self.escaped {
            let quoted = [b"\"", &*self.key, b"\""].concat();
            let key = serde_json::from_slice::<String>(&quoted).unwrap_or_default();
            visit.key(self.depth, key.as_bytes());
        } else {
            visit.key(self.depth, &self.key);
        }
    }
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Eq, PartialEq)]
    struct Seen(Vec<(u32, String)>);

    impl Visit for Seen {
        fn key(&mut self, depth: u32, key: &[u8]) {
            self.0.push((depth, String::from_utf8_lossy(key).into_owned()));
        }

        fn begin(&mut self, depth: u32, at: usize, _: u8) {
            self.0.push((depth, format!("{at}..")));
        }

        fn end(&mut self, depth: u32, at: usize) {
            self.0.push((depth, format!("..{at}")));
        }
    }

    fn walk(pieces: &[&[u8]]) -> (Seen, bool, bool) {
        let (mut seen, mut walker) = (Seen::default(), Walker::new());
        for piece in pieces {
            walker.feed(piece, &mut seen);
        }
        (seen, walker.is_done(), walker.is_lost())
    }

    #[test]
    fn wherever_it_is_cut_the_same_is_seen() {
        let text = br#" {"a\u0062":[1,{"c":"x\"}"},[],{}], "d" : true,"e":-1.5e+7 } "#;
        let whole = walk(&[text]);
        assert!(whole.1 && !whole.2);
        assert!(
            whole.0.0.contains(&(1, "ab".to_owned())) && whole.0.0.contains(&(3, "c".to_owned()))
        );
        for at in 0..text.len() {
            assert_eq!(walk(&[&text[..at], &text[at..]]), whole, "{at}");
        }
        let bytes: Vec<_> = text.chunks(1).collect();
        assert_eq!(walk(&bytes), whole);
    }

    #[test]
    fn what_is_not_json_is_given_up() {
        for wrong in ["}", "[}", "{]", "{1:2}", "{\"a\" 1}", "[1 2]", "<html>", "{} {}", "{\"a\":}"]
        {
            assert!(walk(&[wrong.as_bytes()]).2, "{wrong}");
        }
        let deep = "[".repeat(200);
        assert!(walk(&[deep.as_bytes()]).2);
    }
}
