//! Cuts a line into tokens in one pass, and says of each whether it looks like a variable; hands on tokens with hashes.

mod alphabet;
mod context;
mod lists;
mod plain;
mod printed;
mod quoted;
mod word;

use memchr::memchr;

use super::{fields, hash::VAR_HASH};
use alphabet::{ALPHA, DELIM, DIGIT, SPACE, STOP, class, is_word};
pub use alphabet::{exception_name, is_humped, is_level};

/// What a token looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Certainly a value: digits, paths, addresses, quoted text, lists of such.
    #[default]
    Var,
    Punct,
    /// A word of the text.
    Word,
    /// A word where values stand: after `=` or an attached `:`, or with two dots and more.
    Suspect,
}

/// A part of the line that was scanned.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    pub kind: Kind,
    /// Whitespace comes before it.
    pub spaced: bool,
    /// A word without lower-case letters.
    pub caps: bool,
    /// A key whose number does not count.
    pub numbered: bool,
    /// Bytes of the line.
    pub start: u32,
    pub end: u32,
    pub hash: u64,
}

/// More tokens than this become one variable at the end.
const MAX_TOKENS: usize = 120;
/// More bytes than this of one message are not looked at, nor of a cause.
const MAX_BYTES: usize = 4096;
const MAX_CAUSE: usize = 1024;
/// Lines of a stack trace among which its cause is searched, from the end.
const MAX_TRACE: usize = 500;
/// So many messages are unwrapped that hold the next one.
const MAX_WRAPS: usize = 3;
/// A quoted string or a bracketed value is closed within so many bytes, or it is none.
const MAX_GROUP: usize = 1024;

/// A reusable scanner: its buffer lives on from line to line.
#[derive(Default)]
pub struct Scanner {
    tokens: Vec<Token>,
    /// A bit for each hash among the tokens: most words are said for the first time, and repeat nothing.
    said: u64,
    /// There was a word already.
    first_text: bool,
    /// The message of the last line without its escapes, where it had any.
    text: Vec<u8>,
    unescaped: bool,
    /// All rules are asked of every word, plain or not.
    #[cfg(test)]
    thorough: bool,
}

impl Scanner {
    /// The tokens of the telling part of a message: of its first line that is not empty, or of the message field of JSON and
    /// logfmt; and of the cause that a stack trace names last.
    pub fn scan(&mut self, line: &[u8]) -> &[Token] {
        self.tokens.clear();
        self.said = said(VAR_HASH);
        self.first_text = false;
        self.unescaped = false;
        let mut text = std::mem::take(&mut self.text);
        if memchr(b'\\', line).is_some() {
            // A shipper's JSON may hold a program's.
            for _ in 0..MAX_WRAPS {
                let Some(inner) = unescaped(if self.unescaped { &text } else { line }) else { break };
                text = inner;
                self.unescaped = true;
            }
        }
        self.cut(if self.unescaped { &text } else { line });
        self.text = text;
        &self.tokens
    }

    /// What the tokens of the last line are places in.
    pub fn text<'a>(&'a self, line: &'a [u8]) -> &'a [u8] {
        if self.unescaped { &self.text } else { line }
    }

    fn cut(&mut self, line: &[u8]) {
        let (from, end) = first_line(line);
        let (first, rest) = (&line[..end], &line[end..]);
        let parts = match fields::message(first, from) {
            Some((brace, start, end)) => [(from, brace), (start, end)],
            None if first.get(from) == Some(&b'{') && fields::closes(first, from) => {
                [(from + 1, end), (0, 0)]
            }
            None => [(from, end), (0, 0)],
        };
        for (at, to) in parts.into_iter().filter(|(at, to)| at < to) {
            self.part(line, at, to.min(at + MAX_BYTES), false);
        }
        if let Some((start, to)) = cause(first, rest) {
            self.part(line, end + start, end + to.min(start + MAX_CAUSE), true);
        }
    }

    /// Those of the last message.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Adds a token, and tells whether none like it was there.
    fn add(&mut self, token: Token) -> bool {
        let bit = said(token.hash);
        let is_new = self.said & bit == 0;
        self.said |= bit;
        self.tokens.push(token);
        is_new
    }

    fn part(&mut self, line: &[u8], at: usize, to: usize, spaced: bool) {
        Cursor { line, to, at, spaced, value: Value::No, text_until: usize::MAX, s: self }.run();
    }
}

/// The bit of a hash in [`Scanner::said`].
fn said(hash: u64) -> u64 {
    1 << (hash >> 58)
}

/// Where the first line begins and ends that is not empty.
fn first_line(line: &[u8]) -> (usize, usize) {
    let is_blank = |b: &&u8| class(**b) == SPACE || **b == b'\n';
    let from = line.iter().take_while(is_blank).count();
    (from, memchr(b'\n', &line[from..]).map_or(line.len(), |length| from + length))
}

/// The message of a JSON line or a logfmt line without its escapes, if it has any, and what stands before it.
fn unescaped(line: &[u8]) -> Option<Vec<u8>> {
    let (from, end) = first_line(line);
    let (brace, start, to) = fields::message(&line[..end], from)?;
    memchr(b'\\', &line[start..to])?;
    let mut text = line[from..brace].to_vec();
    fields::unescape(&line[start..to], &mut text);
    Some(text)
}

/// Where the last cause stands in what follows the first line: Java's `Caused by:`, or the last line of Python's traceback.
fn cause(first: &[u8], rest: &[u8]) -> Option<(usize, usize)> {
    let mut end = rest.len();
    let python = first.starts_with(b"Traceback (");
    for line in rest.rsplit(|b| *b == b'\n').take(MAX_TRACE) {
        let start = end - line.len();
        let ours = match python {
            true => class(*line.first().unwrap_or(&b' ')) != SPACE && line.contains(&b':'),
            false => line.starts_with(b"Caused by: "),
        };
        if ours {
            return Some((start, end));
        }
        end = start.checked_sub(1)?;
    }
    None
}

/// Whether the next token stands where a value is expected.
#[derive(Clone, Copy, PartialEq)]
enum Value {
    No,
    /// After `key=`.
    Assigned,
    /// After `key:` without a space.
    Attached,
}

struct Cursor<'a> {
    line: &'a [u8],
    to: usize,
    at: usize,
    spaced: bool,
    value: Value,
    /// Where the quote closes that opened the message.
    text_until: usize,
    s: &'a mut Scanner,
}

impl Cursor<'_> {
    fn run(mut self) {
        while self.at < self.to {
            let byte = self.line[self.at];
            match class(byte) {
                SPACE => {
                    self.at += 1;
                    self.spaced = true;
                    continue;
                }
                STOP if byte == b'\n' => break,
                STOP => self.escape(),
                DELIM => self.delimiter(byte),
                _ => self.word(),
            }
            if self.s.tokens.len() >= MAX_TOKENS {
                if self.at < self.to {
                    self.push(Kind::Var, self.at, self.to);
                }
                break;
            }
        }
        if self.value == Value::Assigned {
            self.push(Kind::Var, self.at, self.at);
        }
    }

    fn byte(&self, at: usize) -> u8 {
        if at < self.to { self.line[at] } else { 0 }
    }

    /// Skips a terminal sequence (`ESC [ … letter`, or `ESC` and one byte).
    fn escape(&mut self) {
        self.at += 1;
        if self.byte(self.at) == b'[' {
            self.at += 1;
            while self.at < self.to && !(0x40..=0x7e).contains(&self.line[self.at]) {
                self.at += 1;
            }
        }
        self.at = (self.at + 1).min(self.to);
    }

    fn delimiter(&mut self, byte: u8) {
        let start = self.at;
        match byte {
            b'"' | b'\'' | b'`' if self.quoted(byte) => return,
            b'{' => {
                // Braces hold dumps of objects, whose fields come and go.
                if let Some(end) = self.closing(start) {
                    return self.value_until(end);
                }
            }
            b'[' | b'(' | b'<' if self.value == Value::Assigned => {
                if let Some(end) = self.closing(start) {
                    return self.value_until(end);
                }
            }
            b'(' if (self.spaced || self.value != Value::No) && self.absent(start).is_some() => {
                let end = self.absent(start).unwrap_or(start + 1);
                return self.value_until(end);
            }
            b'(' if let Some(end) = self.errno(start).or_else(|| self.remark(start)) => {
                return self.value_until(end);
            }
            b'(' if self.spaced && self.is_command_next() => {
                if let Some(end) = self.closing(start).filter(|end| *end > start + 2) {
                    self.push(Kind::Punct, start, start + 1);
                    self.push(Kind::Var, start + 1, end - 1);
                    self.push(Kind::Punct, end - 1, end);
                    self.at = end;
                    return;
                }
            }
            b'(' if self.spaced && self.byte(start + 1) == b')' => {
                return self.held(start, start + 2);
            }
            b'(' if !self.spaced
                && class(self.byte(start + 1)) == 0
                && self.byte(start + 1) != 0
                && self.byte(start + 2) == b')' =>
            {
                return self.held(start, start + 3);
            }
            b'[' if self.byte(start + 1) == b']' => {
                return self.held(start, start + 2);
            }
            b'(' if self.spaced
                && let Some(end) = self.thread(start) =>
            {
                self.held(start, end);
                self.value = Value::No;
                return;
            }
            b'[' if (self.spaced || start == 0 || matches!(self.line[start - 1], b':' | b']' | b'"'))
                && let Some(end) = self.context(start) =>
            {
                self.held(start, end);
                self.value = Value::No;
                return;
            }
            b'[' if let Some(end) = self.six(start) => return self.value_until(end),
            b'[' if self.spaced
                && let Some(end) = self.padded(start) =>
            {
                self.held(start, end);
                self.value = Value::No;
                return;
            }
            b'<' if self
                .closing(start)
                .is_some_and(|end| self.literal(&self.line[start + 1..end - 1], Value::Assigned)) =>
            {
                let end = self.closing(start).unwrap_or(start + 1);
                return self.value_until(end);
            }
            b'<' if self.byte(start + 1) == b'>' => {
                return self.held(start, start + 2);
            }
            b'<' | b'>' if let Some(end) = self.versions(start) => return self.value_until(end),
            b'<' | b'>' if self.spaced && self.compared(start) => return,
            b'<' if let Some(end) = self.element(start).or_else(|| self.instance(start)) => {
                return self.value_until(end);
            }
            b':' if let Some(end) = self.colons(start) => return self.value_until(end),
            b',' | b';' if self.spaced && self.is_after(b':') => {
                // `server: , request: …`: an empty value is a value.
                self.push(Kind::Var, start, start);
                self.spaced = false;
            }
            _ => {}
        }
        if self.value == Value::Assigned
            && !matches!(byte, b'=' | b'"' | b'\'' | b'`' | b'(' | b'[' | b'<' | b'>' | b'{' | b':')
        {
            // An empty value is a value.
            self.push(Kind::Var, start, start);
        }
        let attached = !self.spaced;
        self.push(Kind::Punct, start, start + 1);
        self.at = start + 1;
        self.value = match byte {
            b'=' if !matches!(self.byte(start + 1), b'=' | b'>')
                && start > 0
                && !matches!(self.line[start - 1], b'=' | b'!' | b'<' | b'>') =>
            {
                Value::Assigned
            }
            b':' if attached && class(self.byte(start + 1)) & (SPACE | DELIM) == 0 && !self.is_head() => {
                Value::Attached
            }
            _ => Value::No,
        };
    }

    /// Takes all that stands between two marks, maybe nothing, for one value. `end`: behind the second.
    fn held(&mut self, start: usize, end: usize) {
        self.push(Kind::Punct, start, start + 1);
        self.push(Kind::Var, start + 1, end - 1);
        self.push(Kind::Punct, end - 1, end);
        self.at = end;
    }

    fn value_until(&mut self, end: usize) {
        self.push(Kind::Var, self.at, end);
        self.at = end;
        self.value = Value::No;
    }

    /// Is the last token this mark?
    fn is_after(&self, mark: u8) -> bool {
        self.s.tokens.last().is_some_and(|t| t.kind == Kind::Punct && self.line[t.start as usize] == mark)
    }

    /// Where an address of IPv6 in brackets ends, with its port: `[::1]:80`.
    fn six(&self, start: usize) -> Option<usize> {
        let text = &self.line[start + 1..self.to];
        let length = text.iter().take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')).count();
        let short = text[..length].windows(2).any(|w| w == b"::");
        let is_address = short || text[..length].iter().filter(|b| **b == b':').count() == 7;
        if !is_address || text.get(length) != Some(&b']') {
            return None;
        }
        let mut end = start + length + 2;
        if self.byte(end) == b':' && class(self.byte(end + 1)) == DIGIT {
            end += 1;
            while class(self.byte(end)) == DIGIT {
                end += 1;
            }
        }
        Some(end)
    }

    /// Where a list ends that is printed with blanks inside its brackets: `[ SA KE No ]`. One word alone may be a
    /// level unless it follows a value, and what begins a line is who speaks.
    fn padded(&self, start: usize) -> Option<usize> {
        if self.byte(start + 1) != b' ' || self.s.tokens.is_empty() {
            return None;
        }
        let end = self.closing_within(start, MAX_BYTES)?;
        let inside = &self.line[start + 1..end - 1];
        let several = inside.trim_ascii().contains(&b' ');
        (self.line[end - 2] == b' ' && (several || self.after_var())).then_some(end)
    }

    /// `(null)`, `(unnamed)`, as programs in C print what is not there.
    fn absent(&self, start: usize) -> Option<usize> {
        let text = &self.line[start..self.to];
        let words = [&b"(null)"[..], b"(nil)", b"(none)", b"(unnamed)", b"(unknown)", b"(empty)"];
        let is = |word: &&&[u8]| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
        words.iter().find(is).map(|word| start + word.len())
    }

    /// Where an address ends that begins with colons: `::1`.
    fn colons(&self, start: usize) -> Option<usize> {
        let apart =
            self.spaced || self.value == Value::Assigned || start == 0 || !is_word(self.line[start - 1]);
        if self.byte(start + 1) != b':' || !apart {
            return None;
        }
        let text = &self.line[start..self.to];
        let end =
            start + text.iter().take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')).count();
        (end > start + 2 && !is_word(self.byte(end))).then_some(end)
    }

    /// Where an XML element ends that begins here.
    fn element(&self, start: usize) -> Option<usize> {
        let text = &self.line[start..self.to.min(start + MAX_BYTES)];
        let name = text[1..].iter().take_while(|b| is_word(**b) && **b != b'/').count();
        let after = *text.get(name + 1)?;
        if name == 0 || class(text[1]) != ALPHA || !matches!(after, b' ' | b'/' | b'>') {
            return None;
        }
        let close = text.iter().position(|b| *b == b'>')?;
        if text[close - 1] == b'/' {
            return Some(start + close + 1);
        }
        let is_end = |w: &[u8]| w[..2] == *b"</" && w[2..name + 2] == text[1..=name] && w[name + 2] == b'>';
        let end = text[close..].windows(name + 3).position(is_end)?;
        Some(start + close + end + name + 3)
    }

    /// `<1`, `>= 5`, in `lifetime <1 sec`, is part of the number.
    fn compared(&mut self, start: usize) -> bool {
        let mut at = start + 1;
        if self.byte(at) == b'=' {
            at += 1;
        }
        if self.byte(at) == b' ' {
            at += 1;
        }
        let digits = at;
        while class(self.byte(at)) == DIGIT || self.byte(at) == b'.' {
            at += 1;
        }
        if at == digits || class(self.byte(digits)) != DIGIT || self.byte(at) == b'>' {
            return false;
        }
        self.at = digits;
        let spaced = self.spaced;
        self.word();
        if let Some(last) =
            self.s.tokens.last_mut().filter(|t| t.kind == Kind::Var && t.start == digits as u32)
        {
            last.start = start as u32;
            last.spaced = spaced;
        }
        true
    }
}
