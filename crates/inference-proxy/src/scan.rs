use std::ops::Range;

use domain::is_model_name;
use memchr::memchr2;
use thiserror::Error;

/// Finds the model in a JSON body while the body arrives, without parsing or copying it.
///
/// It follows the whole grammar of structure, so that no other parser sees another top-level `model`
/// than this one: a second one is refused, and one in other letters too, for some parsers do not
/// tell cases apart. What lies inside of values is the provider's business.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    /// One bit a level, the innermost lowest: 1 for an object, 0 for an array.
    levels: u64,
    depth: u32,
    /// How much was fed before.
    offset: usize,
    /// The raw bytes of the string at hand, when it matters.
    held: Vec<u8>,
    model_next: bool,
    stream_next: bool,
    outline: Outline,
    model_start: usize,
}

/// What there is to know of a body without parsing it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Outline {
    /// The model that it names.
    pub(crate) model: Option<Model>,
    /// Where its first member may stand: right behind the first brace.
    pub(crate) inside: usize,
    /// Whether it asks for a stream.
    pub(crate) streams: bool,
    /// Whether it has a member `stream_options`.
    pub(crate) has_stream_options: bool,
}

/// The model that a body names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Model {
    /// Its name, unescaped.
    pub(crate) name: String,
    /// Where it stands in the body, between the quotes.
    pub(crate) span: Range<usize>,
}

/// Why a body is not sent on.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum BodyError {
    #[error("the request body must be a JSON object")]
    NotAnObject,
    #[error("the request body is not valid JSON")]
    Malformed,
    #[error("the request body ends too early to be valid JSON")]
    Truncated,
    #[error("the request body is nested deeper than 64 levels")]
    TooDeep,
    #[error("the request body has more than one `model`; send exactly one")]
    Duplicate,
    #[error("the request body has a member that differs from `model` only in case; remove it")]
    Ambiguous,
    #[error("`model` must be a string")]
    ModelNotText,
    #[error("`model` must be 1 to 256 of the characters A-Z, a-z, 0-9 and . _ : / @ -")]
    ModelUnusable,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Start,
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    After,
    Text(Role),
    Escape(Role),
    Number,
    Word(&'static [u8]),
    Done,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Role {
    TopKey,
    Key,
    Model,
    Value,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Start,
            levels: 0,
            depth: 0,
            offset: 0,
            held: Vec::new(),
            model_next: false,
            stream_next: false,
            outline: Outline::default(),
            model_start: 0,
        }
    }

    /// Takes the next part of the body.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let used = match self.state {
                State::Text(role) => self.text(role, rest, self.at(bytes, rest))?,
                State::Escape(role) => {
                    self.hold(role, &[byte]);
                    self.state = State::Text(role);
                    1
                }
                State::Number if is_number(byte) => run(rest, is_number),
                State::Number => {
                    self.state = State::After;
                    0
                }
                State::Word(left) => self.word(left, byte)?,
                State::Start
                | State::Value
                | State::ValueOrEnd
                | State::Key
                | State::KeyOrEnd
                | State::Colon
                | State::After
                | State::Done => self.between(byte, rest, self.at(bytes, rest))?,
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        self.offset += bytes.len();
        Ok(())
    }

    /// Says what was found in the whole body.
    pub(crate) fn finish(self) -> Result<Outline, BodyError> {
        if self.state == State::Done {
            Ok(self.outline)
        } else if self.state == State::Start {
            Err(BodyError::NotAnObject)
        } else {
            Err(BodyError::Truncated)
        }
    }

    /// Where `rest` begins in the whole body.
    fn at(&self, bytes: &[u8], rest: &[u8]) -> usize {
        self.offset + (bytes.len() - rest.len())
    }

    /// Takes what stands between strings, numbers and words.
    fn between(&mut self, byte: u8, rest: &[u8], at: usize) -> Result<usize, BodyError> {
        if is_space(byte) {
            return Ok(run(rest, is_space));
        }
        self.structure(byte, at)?;
        Ok(1)
    }

    fn structure(&mut self, byte: u8, at: usize) -> Result<(), BodyError> {
        match (self.state, byte) {
            (State::Start, b'{') => {
                self.outline.inside = at + 1;
                self.open(true)
            }
            (State::Start, _) => Err(BodyError::NotAnObject),
            (State::Value | State::ValueOrEnd, _) if byte != b']' => self.value(byte, at),
            (State::Key | State::KeyOrEnd, b'"') => {
                self.held.clear();
                let role = if self.depth == 1 { Role::TopKey } else { Role::Key };
                self.state = State::Text(role);
                Ok(())
            }
            (State::KeyOrEnd | State::After, b'}') => self.close(true),
            (State::ValueOrEnd | State::After, b']') => self.close(false),
            (State::Colon, b':') => {
                self.state = State::Value;
                Ok(())
            }
            (State::After, b',') => {
                self.state = if self.levels & 1 == 1 { State::Key } else { State::Value };
                Ok(())
            }
            _ => Err(BodyError::Malformed),
        }
    }

    fn value(&mut self, byte: u8, at: usize) -> Result<(), BodyError> {
        let is_model = std::mem::take(&mut self.model_next);
        if std::mem::take(&mut self.stream_next) {
            self.outline.streams = byte == b't';
        }
        if is_model && byte != b'"' {
            return Err(BodyError::ModelNotText);
        }
        self.state = match byte {
            b'"' if is_model => {
                self.held.clear();
                self.model_start = at + 1;
                State::Text(Role::Model)
            }
            b'"' => State::Text(Role::Value),
            b'{' => return self.open(true),
            b'[' => return self.open(false),
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            b'-' | b'0'..=b'9' => State::Number,
            _ => return Err(BodyError::Malformed),
        };
        Ok(())
    }

    fn open(&mut self, object: bool) -> Result<(), BodyError> {
        if self.depth == DEEPEST {
            return Err(BodyError::TooDeep);
        }
        self.depth += 1;
        self.levels = (self.levels << 1) | u64::from(object);
        self.state = if object { State::KeyOrEnd } else { State::ValueOrEnd };
        Ok(())
    }

    fn close(&mut self, object: bool) -> Result<(), BodyError> {
        if (self.levels & 1 == 1) != object || self.depth == 0 {
            return Err(BodyError::Malformed);
        }
        self.levels >>= 1;
        self.depth -= 1;
        self.state = if self.depth == 0 { State::Done } else { State::After };
        Ok(())
    }

    /// Goes on to the end of a string's plain run. This is where long prompts are.
    fn text(&mut self, role: Role, rest: &[u8], at: usize) -> Result<usize, BodyError> {
        let run = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        self.hold(role, rest.get(..run).unwrap_or_default());
        match rest.get(run) {
            None => return Ok(run),
            Some(b'"') => self.end_of_text(role, at + run)?,
            Some(_) => {
                self.hold(role, b"\\");
                self.state = State::Escape(role);
            }
        }
        Ok(run + 1)
    }

    fn hold(&mut self, role: Role, bytes: &[u8]) {
        if matches!(role, Role::TopKey | Role::Model) {
            // One byte more than may be, so that too long a string is seen to be one.
            let room = (LONGEST_HELD + 1).saturating_sub(self.held.len());
            self.held.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        }
    }

    fn end_of_text(&mut self, role: Role, end: usize) -> Result<(), BodyError> {
        match role {
            Role::Key => self.state = State::Colon,
            Role::Value => self.state = State::After,
            Role::TopKey => {
                self.state = State::Colon;
                self.key()?;
            }
            Role::Model => {
                self.state = State::After;
                let name = unescape(&self.held).filter(|name| is_model_name(name));
                let name = name.ok_or(BodyError::ModelUnusable)?;
                self.outline.model = Some(Model { name, span: self.model_start..end });
            }
        }
        Ok(())
    }

    fn key(&mut self) -> Result<(), BodyError> {
        // Each letter may be escaped, and then has six bytes.
        if self.held.len() > 6 * "stream_options".len() || self.held.len() < "model".len() {
            return Ok(());
        }
        // What cannot be read here might be read as one of these elsewhere.
        let key = unescape(&self.held).ok_or(BodyError::Malformed)?;
        self.stream_next = key == "stream";
        self.outline.has_stream_options |= key == "stream_options";
        if !key.eq_ignore_ascii_case("model") {
            return Ok(());
        }
        if key != "model" {
            return Err(BodyError::Ambiguous);
        }
        if self.outline.model.is_some() {
            return Err(BodyError::Duplicate);
        }
        self.model_next = true;
        Ok(())
    }

    fn word(&mut self, left: &'static [u8], byte: u8) -> Result<usize, BodyError> {
        match left.split_first() {
            Some((expected, left)) if *expected == byte => {
                self.state = State::Word(left);
                Ok(1)
            }
            Some(_) => Err(BodyError::Malformed),
            None => {
                self.state = State::After;
                Ok(0)
            }
        }
    }
}

fn unescape(raw: &[u8]) -> Option<String> {
    let raw = std::str::from_utf8(raw).ok()?;
    if raw.contains('\\') {
        serde_json::from_str(&format!("\"{raw}\"")).ok()
    } else {
        Some(raw.to_owned())
    }
}

fn is_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn run(bytes: &[u8], fits: fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !fits(*byte)).unwrap_or(bytes.len())
}

const DEEPEST: u32 = 64;
/// 256 characters, each of them escaped.
const LONGEST_HELD: usize = 6 * 256;

#[cfg(test)]
mod tests;
