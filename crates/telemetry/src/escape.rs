use std::io::{self, Write};

/// Writes an event's line with each control character in it escaped as JSON does it. Nothing that a
/// peer put into a field starts a line of its own or steers a terminal.
pub(crate) struct Escaping<W>(pub(crate) W);

impl<W: Write> Write for Escaping<W> {
    /// Takes one whole event, as tracing-subscriber writes them.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let mut escaped = escape(&String::from_utf8_lossy(text));
        escaped.push('\n');
        // One call, so that lines of several threads and processes do not mix.
        self.0.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len().saturating_add(1));
    for character in text.chars() {
        if character.is_control() || is_line_break_or_override(character) {
            // Every one of them lies in the first plane, so that four digits do.
            let number = u32::from(character);
            escaped.push_str("\\u");
            for shift in [12, 8, 4, 0] {
                escaped.extend(char::from_digit((number >> shift) & 0xf, 16));
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Separators that some viewers break lines at, and marks that turn the order of what follows around.
fn is_line_break_or_override(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_one_line_whatever_is_in_it() {
        let mut out = Vec::new();
        let event = "name=a\nb\u{1b}[31m\u{9b}2J\u{2028}\u{202e}é\u{7f}\r\n";
        Escaping(&mut out).write_all(event.as_bytes()).unwrap();
        let line = String::from_utf8(out).unwrap();
        let escaped = "name=a\\u000ab\\u001b[31m\\u009b2J\\u2028\\u202eé\\u007f\\u000d\n";
        assert_eq!(line, escaped);
    }

    #[test]
    fn escaped_json_means_the_same() {
        let mut out = Vec::new();
        Escaping(&mut out).write_all("{\"name\":\"a\u{9b}b\"}\n".as_bytes()).unwrap();
        let event: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(event["name"], "a\u{9b}b");
    }
}
