/// A table for spreadsheets, as RFC 4180 has it: a header, commas, and lines that end in CRLF.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut text = String::new();
    line(&mut text, &header);
    for row in rows {
        line(&mut text, &row);
    }
    text
}

fn line<T: AsRef<str>>(text: &mut String, cells: &[T]) {
    for (place, cell) in cells.iter().map(AsRef::as_ref).enumerate() {
        if place > 0 {
            text.push(',');
        }
        if cell.contains([',', '"', '\r', '\n']) {
            text.push('"');
            text.push_str(&cell.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(cell);
        }
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_cell_is_quoted() {
        let row = ["a,b".to_owned(), "say \"x\"".to_owned(), "plain".to_owned()];
        let text = table(["one", "two", "three"], [row]);
        assert_eq!(text, "one,two,three\r\n\"a,b\",\"say \"\"x\"\"\",plain\r\n");
    }
}
