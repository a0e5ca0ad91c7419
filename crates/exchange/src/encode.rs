use std::fmt::Write as _;

/// A form as token endpoints take it: every byte that is not plain is escaped, so that all who read it
/// and write it again get the same bytes, as checking a signature may need.
pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(1024);
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        percent_encode(&mut text, name);
        text.push('=');
        percent_encode(&mut text, value);
    }
    text
}

/// Appends a value with all but the unreserved characters of RFC 3986 escaped.
pub(crate) fn percent_encode(text: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_leave_its_place_in_a_form() {
        assert_eq!(
            form(&[("a", "b&c=d"), ("e f", "*+%\u{e9}~")]),
            "a=b%26c%3Dd&e%20f=%2A%2B%25%C3%A9~"
        );
        assert_eq!(form(&[]), "");
    }
}
