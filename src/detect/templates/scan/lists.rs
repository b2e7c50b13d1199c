//! Lists and repetitions: however long, they have one shape.

use super::{
    super::hash::{VAR_HASH, hash},
    Cursor, Kind, Token,
    alphabet::is_unit,
};

/// The longest group of tokens whose repetition is seen.
const MAX_PERIOD: usize = 6;

impl Cursor<'_> {
    /// Adds a token; runs and lists of variables are one, as are repeated groups that hold one.
    pub(super) fn push(&mut self, kind: Kind, start: usize, end: usize) {
        let spaced = std::mem::take(&mut self.spaced);
        let tokens = &mut self.s.tokens;
        if kind == Kind::Var {
            if let [.., first, sep] = tokens.as_slice()
                && first.kind == Kind::Var
                && sep.kind == Kind::Punct
                && matches!(self.line[sep.start as usize], b',' | b'-' | b'/' | b'+' | b'&' | b'~')
            {
                tokens.pop();
            }
            if let Some(last) = tokens.last_mut()
                && last.kind == Kind::Var
            {
                last.end = end as u32;
                return;
            }
        }
        let hash = match kind {
            Kind::Var => VAR_HASH,
            _ => hash(&self.line[start..end]),
        };
        self.s.first_text |= matches!(kind, Kind::Word | Kind::Suspect);
        let caps = matches!(kind, Kind::Word | Kind::Suspect)
            && end > start + 1
            && !self.line[start..end].iter().any(|b| b.is_ascii_lowercase() || *b >= 0x80);
        tokens.push(Token {
            kind,
            spaced,
            caps,
            numbered: false,
            start: start as u32,
            end: end as u32,
            hash,
        });
        if kind == Kind::Punct && matches!(self.line[start], b')' | b']') {
            self.listed();
            self.restated();
        }
        repeated(&mut self.s.tokens, self.line);
    }

    /// `(54, powerd)`: what stands beside a value in a list of single words is a value.
    pub(super) fn listed(&mut self) {
        let tokens = &mut self.s.tokens;
        let mut at = tokens.len() - 1;
        let mut values = 0;
        let mut items = 0;
        while at > 0 {
            let item = &tokens[at - 1];
            if item.kind == Kind::Punct {
                return;
            }
            values += usize::from(item.kind == Kind::Var);
            items += 1;
            let Some(before) = at
                .checked_sub(2)
                .map(|i| self.line[tokens[i].start as usize])
                .filter(|_| tokens[at - 2].kind == Kind::Punct)
            else {
                return;
            };
            match before {
                b',' => at -= 2,
                b'(' | b'[' => {
                    if items > 1 && values > 0 {
                        let (first, last) = (at - 1, tokens.len() - 1);
                        let end = tokens[last - 1].end;
                        tokens[first] =
                            Token { kind: Kind::Var, hash: VAR_HASH, end, caps: false, ..tokens[first] };
                        tokens.swap(first + 1, last);
                        tokens.truncate(first + 2);
                    }
                    return;
                }
                _ => return,
            }
        }
    }

    /// `1200 bytes (1.17 KB)`: the second quantity says the first again, and is printed only when it helps.
    pub(super) fn restated(&mut self) {
        let tokens = &mut self.s.tokens;
        let [.., outer, open, inner, _] = tokens.as_slice() else { return };
        let quantity = |t: &Token| {
            let text = &self.line[t.start as usize..t.end as usize];
            t.kind == Kind::Var
                && text.iter().rposition(|b| *b == b' ').is_some_and(|i| is_unit(&text[i + 1..]))
        };
        if self.line[open.start as usize] == b'(' && quantity(outer) && quantity(inner) {
            let end = tokens.len() - 3;
            tokens.truncate(end);
        }
    }
}

/// Drops the last group of tokens when it says the same as the one before: a list of any length has one shape.
fn repeated(tokens: &mut Vec<Token>, line: &[u8]) {
    let n = tokens.len();
    let Some(last) = tokens.last().map(|t| t.hash) else { return };
    for k in 1..=MAX_PERIOD.min(n / 2) {
        if tokens[n - 1 - k].hash == last {
            let (before, group) = tokens[n - 2 * k..].split_at(k);
            if group.iter().any(|t| t.kind == Kind::Var)
                && group.iter().zip(before).all(|(a, b)| a.hash == b.hash)
            {
                tokens.truncate(n - k);
                return;
            }
        }
        if n > 2 * k && tokens[n - 2 - k].hash == last {
            let separator = &tokens[n - k - 1];
            let group = &tokens[n - k..];
            let before = &tokens[n - 2 * k - 1..n - k - 1];
            if separator.kind == Kind::Punct
                && matches!(line[separator.start as usize], b',' | b';' | b'|' | b'-')
                && group.iter().any(|t| t.kind == Kind::Var)
                && group.iter().zip(before).all(|(a, b)| a.hash == b.hash)
            {
                tokens.truncate(n - k - 1);
                return;
            }
        }
    }
}
