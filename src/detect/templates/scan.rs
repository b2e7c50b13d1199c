//! Cuts a log line into constant words, punctuation and obvious variables, in one pass over its bytes.

/// What a token is. Identity of a line is made of kinds and word hashes; whitespace is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    Word,
    Punct,
    /// A number, id, address, path, quoted string …: anything that changes from line to line on sight.
    Var,
}

/// A piece of the line that was scanned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// Whitespace comes before it.
    pub spaced: bool,
    pub hash: u64,
}

/// What stands for a variable in every hash.
pub const VAR_HASH: u64 = 0x9e37_79b9_7f4a_7c15;
/// More tokens than this become one variable at the end.
const MAX_TOKENS: usize = 96;
/// More bytes than this of one line are not looked at.
const MAX_BYTES: usize = 2048;

/// A reusable scanner: its buffers live on from line to line.
#[derive(Default)]
pub struct Scanner {
    tokens: Vec<Token>,
    text: String,
}

impl Scanner {
    /// The tokens of the telling part of a message, and that part itself.
    pub fn scan<'a>(&'a mut self, message: &'a str) -> (&'a [Token], &'a str) {
        let Self { tokens, text } = self;
        let line = telling(message, text);
        tokens.clear();
        Cursor { line, bytes: line.as_bytes(), at: 0, tokens }.run();
        (tokens, line)
    }
}

/// The first line without terminal colours; of a stack trace also the last cause, or Python's last line: the type says more
/// than the frames.
fn telling<'a>(message: &'a str, scratch: &'a mut String) -> &'a str {
    let message = message.trim();
    let first = message.lines().next().unwrap_or_default();
    let cause = if first.len() == message.len() { None } else { cause(first, message) };
    if cause.is_none() && !first.contains('\x1b') {
        return cut(first, MAX_BYTES);
    }
    scratch.clear();
    push_plain(cut(first, MAX_BYTES / 2), scratch);
    if let Some(cause) = cause {
        scratch.push_str(" | ");
        push_plain(cut(cause, MAX_BYTES / 2), scratch);
    }
    scratch
}

fn cause<'a>(first: &str, message: &'a str) -> Option<&'a str> {
    if first.starts_with("Traceback (") {
        return message.lines().rev().find(|l| !l.starts_with(char::is_whitespace) && l.contains(':'));
    }
    message.lines().rev().take(500).find(|line| line.starts_with("Caused by: "))
}

fn cut(line: &str, max: usize) -> &str {
    &line[..line.floor_char_boundary(max)]
}

/// Copies without CSI escape sequences (`ESC [ … letter`).
fn push_plain(line: &str, out: &mut String) {
    let mut parts = line.split('\x1b');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let sequence = part.strip_prefix('[').map_or(part, |rest| {
            let end = rest.find(|c: char| ('@'..='~').contains(&c)).map_or(rest.len(), |i| i + 1);
            &rest[end..]
        });
        out.push_str(sequence);
    }
}

struct Cursor<'a> {
    line: &'a str,
    bytes: &'a [u8],
    at: usize,
    tokens: &'a mut Vec<Token>,
}

impl Cursor<'_> {
    fn run(mut self) {
        let mut spaced = false;
        while self.at < self.bytes.len() {
            if self.tokens.len() >= MAX_TOKENS {
                return self.push(Kind::Var, self.at, self.bytes.len(), spaced);
            }
            let byte = self.bytes[self.at];
            if byte.is_ascii_whitespace() {
                self.at += 1;
                spaced = true;
                continue;
            }
            match byte {
                b'"' | b'\'' | b'`' => self.quoted(byte, spaced),
                _ if is_word(byte) => self.word(spaced),
                _ => self.punct(spaced),
            }
            spaced = false;
        }
    }

    fn punct(&mut self, spaced: bool) {
        self.push(Kind::Punct, self.at, self.at + 1, spaced);
        self.at += 1;
    }

    /// A quoted string is a variable, unless a colon after it makes it a key.
    fn quoted(&mut self, quote: u8, spaced: bool) {
        let start = self.at;
        let Some(length) = self.bytes[start + 1..].iter().position(|b| *b == quote) else {
            return self.punct(spaced);
        };
        let end = start + length + 2;
        let closes = self.bytes.get(end).is_none_or(|next| !next.is_ascii_alphanumeric());
        if !closes {
            return self.punct(spaced);
        }
        let kind = if self.bytes.get(end) == Some(&b':') { Kind::Word } else { Kind::Var };
        self.push(kind, start, end, spaced);
        self.at = end;
    }

    fn word(&mut self, spaced: bool) {
        let start = self.at;
        let (mut digit, mut end) = (false, start);
        while let Some(&byte) = self.bytes.get(end) {
            let inner_colon = byte == b':' && self.colon_belongs(end, digit);
            if !is_word(byte) && !inner_colon {
                break;
            }
            digit |= byte.is_ascii_digit();
            end += 1;
        }
        let full = end;
        while end > start + 1 && matches!(self.bytes[end - 1], b'.' | b'!' | b'?') {
            end -= 1;
        }
        let kind = if digit || self.varies(start, end) { Kind::Var } else { Kind::Word };
        self.push(kind, start, end, spaced);
        self.at = end;
        while self.at < full {
            self.punct(false);
        }
    }

    /// A colon inside `10:00:00`, `host:8080`, `http://…`, `a::b` does not end the word.
    fn colon_belongs(&self, at: usize, digit: bool) -> bool {
        self.bytes.get(at + 1).is_some_and(|&next| {
            next.is_ascii_digit()
                || matches!(next, b'/' | b':')
                || (digit && next.is_ascii_hexdigit())
                || (self.bytes[at - 1] == b':' && is_word(next))
        })
    }

    /// Paths, addresses, and long hexadecimal without a digit.
    fn varies(&self, start: usize, end: usize) -> bool {
        let word = &self.bytes[start..end];
        let slashes = word.iter().filter(|b| **b == b'/').count();
        let path = slashes > 1 || (slashes == 1 && word.len() > 1 && word[0] == b'/');
        path || word.iter().any(|b| matches!(b, b'@' | b'\\'))
            || (word.len() >= 8 && word.iter().all(u8::is_ascii_hexdigit))
    }

    /// Adds a token; neighbouring variables and comma-separated lists of them are one.
    fn push(&mut self, kind: Kind, start: usize, end: usize, spaced: bool) {
        if kind == Kind::Var {
            let comma = |t: &Token| t.kind == Kind::Punct && self.line.as_bytes()[t.start] == b',';
            if let [.., first, last] = self.tokens.as_slice()
                && first.kind == Kind::Var
                && comma(last)
            {
                self.tokens.pop();
            }
            if let Some(last) = self.tokens.last_mut()
                && last.kind == Kind::Var
            {
                last.end = end;
                return;
            }
        }
        let hash = if kind == Kind::Var { VAR_HASH } else { hash(&self.bytes[start..end]) };
        self.tokens.push(Token { kind, start, end, spaced, hash });
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"_-./\\@%+*$&~#!?".contains(&byte)
}

/// 64 bits over some bytes, eight at a time; the same on every machine.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut state = (bytes.len() as u64).wrapping_mul(VAR_HASH) ^ 0x2545_f491_4f6c_dd1d;
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    for chunk in chunks.iter().chain([&tail]) {
        state = mix(state ^ u64::from_le_bytes(*chunk));
    }
    state
}

/// A bijection that spreads every bit (the finaliser of SplitMix64).
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line with its variables masked.
    fn masked(line: &str) -> String {
        let mut scanner = Scanner::default();
        let (tokens, text) = scanner.scan(line);
        let mut out = String::new();
        for token in tokens {
            if token.spaced && !out.is_empty() {
                out.push(' ');
            }
            out.push_str(if token.kind == Kind::Var { "<*>" } else { &text[token.start..token.end] });
        }
        out
    }

    #[test]
    fn variables_are_masked_in_one_pass() {
        for (line, expected) in [
            ("connected to 10.0.0.7:5432 in 12.5ms", "connected to <*> in <*>"),
            ("2026-11-21T10:00:00.123Z INFO ready", "<*> INFO ready"),
            ("GET /api/v1/items/7 -> 503", "GET <*> -> <*>"),
            ("id=550e8400-e29b-41d4-a716-446655440000 ok", "id=<*> ok"),
            ("user \"ann lee\" said 'no way'", "user <*> said <*>"),
            ("can't open /var/log/syslog.", "can't open <*>."),
            ("ids: 1, 2, 3, 44 done", "ids: <*> done"),
            ("commit deadbeef by ann@example.org", "commit <*> by <*>"),
            ("see http://example.org/x?y=z now", "see <*>=z now"),
            (r#"{"level":"info","n":5}"#, r#"{"level":<*>,"n":<*>}"#),
            ("\x1b[31mERROR\x1b[0m disk \x1b[1mfull\x1b[0m", "ERROR disk full"),
            ("не удалось открыть файл отчёт_7.txt: нет места", "не удалось открыть файл <*>: нет места"),
            ("std::io::Error: broken", "std::io::Error: broken"),
            ("took 5 s", "took <*> s"),
        ] {
            assert_eq!(masked(line), expected, "{line}");
        }
    }

    #[test]
    fn stack_traces_are_their_first_line_and_their_cause() {
        let java = "java.lang.RuntimeException: cannot charge 17\n\tat a.B.c(B.java:1)\n\
                    Caused by: java.net.ConnectException: refused\n\tat x.Y.z(Y.java:2)";
        let expected =
            "java.lang.RuntimeException: cannot charge <*> | Caused by: java.net.ConnectException: refused";
        assert_eq!(masked(java), expected);
        let python =
            "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nKeyError: 'cart'\n";
        assert_eq!(masked(python), "Traceback (most recent call last): | KeyError: <*>");
    }

    #[test]
    fn very_long_lines_stay_bounded() {
        let mut scanner = Scanner::default();
        let line = "word ".repeat(100_000);
        assert!(scanner.scan(&line).0.len() <= MAX_TOKENS + 1);
    }

    proptest::proptest! {
        #[test]
        fn tokens_lie_inside_the_line_in_order(line in "\\PC*") {
            let mut scanner = Scanner::default();
            let (tokens, text) = scanner.scan(&line);
            let mut last = 0;
            for token in tokens {
                proptest::prop_assert!(last <= token.start && token.start < token.end);
                proptest::prop_assert!(text.get(token.start..token.end).is_some());
                last = token.end;
            }
        }
    }
}
