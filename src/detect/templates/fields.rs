//! Finds the message inside a JSON line or a logfmt line.

/// Names of the field that holds the text, most telling first.
const NAMES: [&[u8]; 8] =
    [b"msg", b"message", b"event", b"log", b"text", b"short_message", b"@message", b"body"];
const MAX_FIELDS: usize = 64;

/// Where a structured line's text before its fields ends, and where its message begins and ends; `None` for plain text, or
/// when no field holds a message. A line ends at `\n`.
pub fn message(line: &[u8], from: usize) -> Option<(usize, usize, usize)> {
    let first = *line.get(from)?;
    if line.trim_ascii_end().last() == Some(&b'}') {
        // A collector's timestamp may stand before the object.
        let brace = from + line[from..].windows(2).position(|w| w == b"{\"")?;
        if brace == from || line[brace - 1] == b' ' {
            let (start, end) = json(line, brace)?;
            return Some((brace, start, end));
        }
        return None;
    }
    if !first.is_ascii_alphabetic() && first != b'@' {
        return None;
    }
    let (start, end) = logfmt(line, from)?;
    Some((from, start, end))
}

/// Does the brace at `from` close at the end of the line?
pub fn closes(line: &[u8], from: usize) -> bool {
    line[from..].trim_ascii_end().last() == Some(&b'}')
        && line[from + 1..].trim_ascii_start().first() == Some(&b'"')
}

/// The string value of the best-named top-level field.
fn json(line: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut best: Option<(usize, (usize, usize))> = None;
    let (mut at, mut depth) = (from, 0_usize);
    let mut key: Option<(usize, usize)> = None;
    let mut expects_key = false;
    let mut fields = 0;
    while at < line.len() && fields < MAX_FIELDS {
        match line[at] {
            b'{' | b'[' => {
                depth += 1;
                expects_key = depth == 1;
                key = None;
            }
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 1 => {
                expects_key = true;
                key = None;
            }
            b'"' => {
                let end = string_end(line, at + 1)?;
                if depth == 1 {
                    if expects_key {
                        key = Some((at + 1, end));
                        expects_key = false;
                        fields += 1;
                    } else if let Some((a, b)) = key.take()
                        && let Some(rank) = NAMES.iter().position(|n| n.eq_ignore_ascii_case(&line[a..b]))
                        && best.is_none_or(|(r, _)| rank < r)
                        && end > at + 1
                    {
                        if rank == 0 {
                            return Some((at + 1, end));
                        }
                        best = Some((rank, (at + 1, end)));
                    }
                }
                at = end;
            }
            b'\n' => break,
            _ => {}
        }
        at += 1;
    }
    best.map(|(_, span)| span)
}

fn string_end(line: &[u8], mut at: usize) -> Option<usize> {
    while at < line.len() {
        match line[at] {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// `a=b c="d e"` throughout, three fields and more, with a message among them.
fn logfmt(line: &[u8], from: usize) -> Option<(usize, usize)> {
    let (mut at, mut fields) = (from, 0);
    let mut best: Option<(usize, (usize, usize))> = None;
    while at < line.len() && line[at] != b'\n' && fields < MAX_FIELDS {
        if line[at] == b' ' {
            at += 1;
            continue;
        }
        let start = at;
        while at < line.len()
            && (line[at].is_ascii_alphanumeric() || matches!(line[at], b'_' | b'.' | b'-' | b'@'))
        {
            at += 1;
        }
        if at == start || line.get(at) != Some(&b'=') {
            return None;
        }
        let key = &line[start..at];
        at += 1;
        let value = if line.get(at) == Some(&b'"') {
            let end = string_end(line, at + 1)?;
            let span = (at + 1, end);
            at = end + 1;
            span
        } else {
            let begin = at;
            while at < line.len() && !matches!(line[at], b' ' | b'\n') {
                at += 1;
            }
            (begin, at)
        };
        fields += 1;
        if let Some(rank) = NAMES.iter().position(|n| n.eq_ignore_ascii_case(key))
            && best.is_none_or(|(r, _)| rank < r)
            && value.1 > value.0
        {
            best = Some((rank, value));
        }
    }
    (fields >= 3).then_some(best?.1)
}
