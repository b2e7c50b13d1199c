//! Comma-separated rows (RFC 4180 quoting) of a file whose columns are known; errors name file and line.

use std::path::Path;

/// Calls `row` with the fields of every row below the header, which must name `columns`. `row` says what is wrong with a field.
pub fn read<const N: usize>(
    path: &Path,
    columns: [&str; N],
    mut row: impl FnMut([&str; N]) -> Result<(), String>,
) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let at = |line: usize, why: &str| format!("{}:{line}: {why}", path.display());
    let mut rows = Rows { text, at: 0, line: 1 };
    let mut header = true;
    while let Some((line, fields)) = rows.next() {
        let fields = fields.map_err(|why| at(line, why))?;
        if fields.len() == 1 && fields[0].is_empty() {
            continue;
        }
        if std::mem::take(&mut header) {
            if !fields.iter().map(String::as_str).eq(columns) {
                return Err(at(line, &format!("the header must be {}", columns.join(","))));
            }
            continue;
        }
        let found = fields.len();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let fields = <[&str; N]>::try_from(fields)
            .map_err(|_| at(line, &format!("{found} fields where {N} belong: {}", columns.join(","))))?;
        row(fields).map_err(|why| at(line, &why))?;
    }
    if header {
        return Err(at(1, &format!("it is empty; the header must be {}", columns.join(","))));
    }
    Ok(())
}

struct Rows<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Rows<'_> {
    /// The line that the next row begins on, and its fields.
    fn next(&mut self) -> Option<(usize, Result<Vec<String>, &'static str>)> {
        if self.at >= self.text.len() {
            return None;
        }
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            match self.field() {
                Ok(field) => fields.push(field),
                Err(why) => return Some((line, Err(why))),
            }
            let rest = &self.text.as_bytes()[self.at..];
            self.at += match rest {
                [b'\r', b'\n', ..] => 2,
                [] => 0,
                _ => 1,
            };
            match rest.first() {
                Some(b',') => {}
                Some(b'\n' | b'\r') => {
                    self.line += 1;
                    return Some((line, Ok(fields)));
                }
                None => return Some((line, Ok(fields))),
                Some(_) => {
                    return Some((line, Err("something stands between a closing quote and the next comma")));
                }
            }
        }
    }

    fn field(&mut self) -> Result<String, &'static str> {
        let rest = &self.text[self.at..];
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find([',', '\n', '\r']).unwrap_or(rest.len());
            self.at += end;
            return Ok(rest[..end].to_owned());
        };
        let mut from = 0;
        loop {
            let end = from + quoted[from..].find('"').ok_or("a quote is not closed")?;
            if quoted.as_bytes().get(end + 1) == Some(&b'"') {
                from = end + 2;
                continue;
            }
            let field = &quoted[..end];
            self.line += field.bytes().filter(|b| *b == b'\n').count();
            self.at += end + 2;
            return Ok(field.replace("\"\"", "\""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<[String; 2]>, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.csv");
        std::fs::write(&path, text).expect("writable");
        let mut seen = Vec::new();
        let row = |r: [&str; 2]| {
            seen.push(r.map(str::to_owned));
            if r[0] == "bad" { Err("that is bad".to_owned()) } else { Ok(()) }
        };
        let place = format!("{}/", dir.path().display());
        read(&path, ["a", "b"], row).map_err(|e| e.replace(&place, ""))?;
        Ok(seen)
    }

    #[test]
    fn quotes_commas_and_line_breaks_stay_inside_a_field() {
        let seen = rows("a,b\r\n1,\"x,\n\"\"y\"\"\"\r\n,2\n\n").expect("good rows");
        assert_eq!(seen, [["1", "x,\n\"y\""], ["", "2"]]);
    }

    #[test]
    fn errors_name_file_and_line() {
        assert_eq!(rows("a,b\n1,\"x\ny\"\nbad,2\n"), Err("x.csv:4: that is bad".into()));
        assert_eq!(rows("a,b\n1\n"), Err("x.csv:2: 1 fields where 2 belong: a,b".into()));
        assert_eq!(rows("a\n"), Err("x.csv:1: the header must be a,b".into()));
        assert_eq!(rows(""), Err("x.csv:1: it is empty; the header must be a,b".into()));
        assert_eq!(rows("a,b\n1,\"x\n"), Err("x.csv:2: a quote is not closed".into()));
    }
}
