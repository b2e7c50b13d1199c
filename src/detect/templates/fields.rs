//! Finds the message inside a JSON line or a logfmt line.

use memchr::memchr;

/// Names of the field that holds the text, most telling first.
pub const NAMES: [&[u8]; 8] =
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

/// Appends a string of JSON or Go without its escapes: `\"`, `\n`, `\u00e9`. What is no escape stays as it is.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(byte) = rest.first() else {
            out.push(b'\\');
            return;
        };
        let plain = match byte {
            b'n' => b'\n',
            b't' | b'r' | b'b' | b'f' => b' ',
            b'"' | b'\\' | b'/' => *byte,
            b'u' if let Some((letter, length)) = unicode(rest) => {
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[length..];
                continue;
            }
            _ => {
                out.push(b'\\');
                continue;
            }
        };
        out.push(plain);
        rest = &rest[1..];
    }
    out.extend_from_slice(rest);
}

/// `u00e9`, or a pair of surrogates (`ud83d\ude00`): the letter and how many bytes tell it.
fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(text.get(at + 1..at + 5)?).ok()?;
        (text[at] == b'u').then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let first = unit(0)?;
    let second =
        (text.get(5) == Some(&b'\\')).then(|| unit(6)).flatten().filter(|u| (0xdc00..0xe000).contains(u));
    let units = [first, second.unwrap_or(0)];
    let pair = (0xd800..0xdc00).contains(&first) && second.is_some();
    let letter = char::decode_utf16(units.into_iter().take(if pair { 2 } else { 1 })).next()?;
    Some((letter.unwrap_or(char::REPLACEMENT_CHARACTER), if pair { 11 } else { 5 }))
}

/// Is a word in it? A message is no number, and no address of one: `msg=0x55d0`.
fn says(text: &[u8]) -> bool {
    let mut words = text.split(|b| !b.is_ascii_alphanumeric() && *b < 0x80);
    words.any(|word| !word.is_empty() && !word.iter().any(u8::is_ascii_digit))
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
            && says(&line[value.0..value.1])
        {
            best = Some((rank, value));
        }
    }
    (fields >= 3).then_some(best?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_what_is_none_stays() {
        for (text, plain) in [
            (r#"GET \"/a\" \u00e9\ud83d\ude00"#, "GET \"/a\" é😀"),
            (r"a\nb\tc\\d\/e", "a\nb c\\d/e"),
            (r"C:\q \ud83d \u12 \", "C:\\q \u{fffd} \\u12 \\"),
        ] {
            let mut out = Vec::new();
            unescape(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).expect("UTF-8"), plain, "{text}");
        }
    }
}
