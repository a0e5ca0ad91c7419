/// A table as spreadsheets have it (RFC 4180), with a header.
#[derive(Debug)]
pub(super) struct Sheet {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Sheet {
    /// Reads a table. Empty lines are passed over.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut rows = rows(text)?.into_iter().filter(|row| row.iter().any(|it| !it.is_empty()));
        let header = rows.next().ok_or("there is nothing in it")?;
        if header.len() < 2 {
            return Err("the first line is no header");
        }
        let header = header.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        Ok(Self { header, rows: rows.collect() })
    }

    /// Where a column stands.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|it| it == name)
    }

    pub(super) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }
}

fn rows(text: &str) -> Result<Vec<Vec<String>>, &'static str> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if cell.is_empty() => quoted = true,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            other => cell.push(other),
        }
    }
    if quoted {
        return Err("a quoted cell does not end");
    }
    row.push(cell);
    rows.push(row);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_may_be_quoted_and_lines_end_in_either_way() {
        let sheet = Sheet::parse("A,b\r\n1,\"x, \"\"y\"\"\nz\"\n\n2,\n").unwrap();
        assert_eq!(sheet.column("a"), Some(0));
        assert_eq!(sheet.rows(), [["1", "x, \"y\"\nz"], ["2", ""]]);
        assert!(Sheet::parse("a,b\n1,\"x").is_err());
        assert!(Sheet::parse("").is_err());
        assert!(Sheet::parse("hello").is_err());
    }
}
