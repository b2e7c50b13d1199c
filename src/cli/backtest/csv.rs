//! Comma-separated rows (RFC 4180 quoting) of a file whose columns are known; errors name file and line.

use std::path::Path;

/// Calls `row` with the fields of every row below the header, which must name `columns`. `row` says what is wrong with a field.
pub fn read<const N: usize>(
    path: &Path,
    columns: [&str; N],
    mut row: impl FnMut([&str; N]) -> Result<(), String>,
) -> Result<(), String> {
    rows(path, columns, None, |fields, _| row(fields))
}

/// Like [`read`], where the header may name one more column behind the others.
pub fn read_with<const N: usize>(
    path: &Path,
    columns: [&str; N],
    optional: &str,
    row: impl FnMut([&str; N], Option<&str>) -> Result<(), String>,
) -> Result<(), String> {
    rows(path, columns, Some(optional), row)
}

fn rows<const N: usize>(
    path: &Path,
    columns: [&str; N],
    optional: Option<&str>,
    mut row: impl FnMut([&str; N], Option<&str>) -> Result<(), String>,
) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let at = |line: usize, why: &str| format!("{}:{line}: {why}", path.display());
    let mut rows = Rows { text, at: 0, line: 1 };
    let mut header = true;
    let mut width = N;
    while let Some((line, fields)) = rows.next() {
        let fields = fields.map_err(|why| at(line, why))?;
        if fields.len() == 1 && fields[0].is_empty() {
            continue;
        }
        if std::mem::take(&mut header) {
            let names = || fields.iter().map(String::as_str);
            let is_more = optional.is_some_and(|more| names().eq(columns.into_iter().chain([more])));
            if !is_more && !names().eq(columns) {
                return Err(at(line, &format!("the header must be {}", columns.join(","))));
            }
            width = fields.len();
            continue;
        }
        let wrong =
            || at(line, &format!("{} fields where {width} belong: {}", fields.len(), columns.join(",")));
        if fields.len() != width {
            return Err(wrong());
        }
        let all: Vec<&str> = fields.iter().map(String::as_str).collect();
        let first = <[&str; N]>::try_from(&all[..N]).map_err(|_| wrong())?;
        row(first, all.get(N).copied()).map_err(|why| at(line, &why))?;
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
    fn a_column_that_may_be_missing_is_told_if_it_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.csv");
        let seen = |text: &str| {
            let mut seen = Vec::new();
            std::fs::write(&path, text).expect("writable");
            let row = |[a]: [&str; 1], b: Option<&str>| {
                seen.push((a.to_owned(), b.map(str::to_owned)));
                Ok(())
            };
            read_with(&path, ["a"], "b", row).map(|()| seen)
        };
        assert_eq!(seen("a\n1\n"), Ok(vec![("1".into(), None)]));
        assert_eq!(seen("a,b\n1,2\n"), Ok(vec![("1".into(), Some("2".into()))]));
        assert!(seen("a,c\n1,2\n").is_err());
        assert!(seen("a,b\n1\n").is_err());
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
