//! Quoted strings and bracketed groups: values, keys, or the message itself.

use super::{
    Cursor, Kind, MAX_GROUP, Token, Value,
    alphabet::{ALPHA, DIGIT, class, is_word, request},
};

impl Cursor<'_> {
    /// The end of a balanced group that opens at `start`.
    pub(super) fn closing(&self, start: usize) -> Option<usize> {
        self.closing_within(start, MAX_GROUP)
    }

    pub(super) fn closing_within(&self, start: usize, bytes: usize) -> Option<usize> {
        let mut depth = 0;
        for at in start..self.to.min(start + bytes) {
            match self.line[at] {
                b'{' | b'[' | b'(' => depth += 1,
                b'}' | b']' | b')' => depth -= 1,
                b'<' if self.line[start] == b'<' => depth += 1,
                b'>' if self.line[start] == b'<' => depth -= 1,
                b'\n' => return None,
                _ => {}
            }
            if depth == 0 {
                return Some(at + 1);
            }
        }
        None
    }

    /// A quoted string is a value, unless a colon after it makes it a key, or it is what the line says.
    pub(super) fn quoted(&mut self, quote: u8) -> bool {
        let start = self.at;
        if start == self.text_until {
            return false;
        }
        if start > 0 && class(self.line[start - 1]) & (DIGIT | ALPHA) != 0 && quote != b'"' {
            return false;
        }
        let Some(length) = self.line[start + 1..self.to.min(start + MAX_GROUP)]
            .iter()
            .position(|b| *b == quote || *b == b'\n')
        else {
            return false;
        };
        let mut end = start + 1 + length;
        if self.line[end] != quote {
            return false;
        }
        // `\"` inside.
        while end > start + 1 && self.line[end - 1] == b'\\' && self.line.get(end - 2) != Some(&b'\\') {
            match self.line[end + 1..self.to.min(start + MAX_GROUP)]
                .iter()
                .position(|b| *b == quote || *b == b'\n')
            {
                Some(more) if self.line[end + 1 + more] == quote => end += 1 + more,
                _ => return false,
            }
        }
        let next = self.byte(end + 1);
        if quote != b'"' && class(next) & (DIGIT | ALPHA) != 0 {
            return false;
        }
        let inside = &self.line[start + 1..end];
        if next == b':'
            && self.value == Value::No
            && self.at_key()
            && inside.iter().all(|b| is_word(*b))
            && !inside.is_empty()
        {
            self.push(Kind::Word, start, end + 1);
            self.at = end + 1;
            return true;
        }
        if !self.labelled()
            && let Some(method) = request(inside)
        {
            // The method of an HTTP request names what is done. Before it, an access log has addresses and users.
            self.client();
            self.push(Kind::Word, start + 1, start + 1 + method);
            self.push(Kind::Var, start + 2 + method, end);
            self.at = end + 1;
            self.value = Value::No;
            return true;
        }
        if self.value == Value::No && !self.s.first_text && inside.contains(&b' ') {
            // No word so far: this is the message, not a value in it.
            self.push(Kind::Punct, start, start + 1);
            self.at = start + 1;
            self.text_until = end;
            return true;
        }
        self.push(Kind::Var, start, end + 1);
        self.at = end + 1;
        self.value = Value::No;
        true
    }

    /// `10.0.0.7 - ann [21/Nov/2026:10:00:00 +0000]` before a request: who asked, and when, is one value.
    fn client(&mut self) {
        let mark = |t: &Token, byte| t.kind == Kind::Punct && self.line[t.start as usize] == byte;
        let tokens = &self.s.tokens;
        let mut first = tokens.len();
        if let [.., open, when, close] = tokens.as_slice()
            && mark(open, b'[')
            && when.kind == Kind::Var
            && mark(close, b']')
        {
            // The user, its identity by RFC 1413, and the host: each may be a mark for nobody.
            first -= 3;
            let named = |i: usize| !matches!(tokens[i].kind, Kind::Punct) || mark(&tokens[i], b'-');
            while first > tokens.len().saturating_sub(6) && first > 0 && named(first - 1) {
                first -= 1;
            }
        } else if tokens.len() <= 8 {
            first = 0;
        }
        if let Some(start) = self.s.tokens.get(first).map(|t| t.start as usize) {
            self.s.tokens.truncate(first);
            self.s.first_text = self.s.tokens.iter().any(|t| matches!(t.kind, Kind::Word | Kind::Suspect));
            let end = self.at;
            self.push(Kind::Var, start, end);
        }
    }

    /// Does a label stand before it, `request: "…"`?
    fn labelled(&self) -> bool {
        let [.., label, colon] = self.s.tokens.as_slice() else { return false };
        label.kind == Kind::Word && !colon.spaced && self.is_after(b':')
    }

    /// Do the fields of an object stand here?
    pub(super) fn at_key(&self) -> bool {
        self.s.tokens.last().is_none_or(|t| {
            t.kind == Kind::Punct && matches!(self.line[t.start as usize], b'{' | b',' | b'(')
        })
    }
}
