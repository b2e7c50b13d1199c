//! Lists and repetitions: however long, they have one shape.

use super::{
    super::hash::{VAR_HASH, hash},
    Cursor, Kind, Token,
    alphabet::{SPACE, class, is_unit},
};

/// The longest group of tokens whose repetition is seen, and the same of groups that end with a bracket.
const MAX_PERIOD: usize = 6;
const MAX_BRACKETED: usize = 12;

impl Cursor<'_> {
    /// Adds a token; runs and lists of variables are one, as are repeated groups that hold one.
    #[inline]
    pub(super) fn push(&mut self, kind: Kind, start: usize, end: usize) {
        match kind {
            Kind::Var => self.push_value(start, end),
            Kind::Punct => self.push_mark(start),
            Kind::Word | Kind::Suspect => self.push_word(kind, start, end),
        }
    }

    pub(super) fn push_word(&mut self, kind: Kind, start: usize, end: usize) {
        let word = &self.line[start..end];
        let caps = word.len() > 1 && !word.iter().any(|b| b.is_ascii_lowercase() || *b >= 0x80);
        let token = Token { caps, ..self.token(kind, start, end, hash(word)) };
        self.s.first_text = true;
        let mut is_new = self.s.add(token);
        // Most words follow no arrow: the last byte of one is looked for first.
        if start > 2 && class(self.line[start - 1]) == SPACE && matches!(self.line[start - 2], b'>' | 0x92) {
            self.transition();
            is_new = false;
        }
        if !is_new {
            repeated(&mut self.s.tokens, self.line);
        }
    }

    fn push_mark(&mut self, at: usize) {
        let mark = self.line[at];
        let token = self.token(Kind::Punct, at, at + 1, hash(&[mark]));
        let is_new = self.s.add(token);
        if matches!(mark, b')' | b']') {
            if mark == b']' {
                self.bracketed_transition();
            }
            self.listed();
            self.restated();
        }
        if !is_new {
            repeated(&mut self.s.tokens, self.line);
        }
    }

    fn push_value(&mut self, start: usize, end: usize) {
        let parts_head = self.spaced && self.parts_head();
        let token = self.token(Kind::Var, start, end, VAR_HASH);
        let tokens = &mut self.s.tokens;
        if let [.., first, bar, other] = tokens.as_slice()
            && first.kind == Kind::Var
            && [bar, other].iter().all(|t| t.kind == Kind::Punct && self.line[t.start as usize] == b'|')
        {
            // `^1.2 || ^2.0`
            tokens.truncate(tokens.len() - 2);
        }
        if let [.., first, sep] = tokens.as_slice()
            && first.kind == Kind::Var
            && sep.kind == Kind::Punct
            && matches!(self.line[sep.start as usize], b',' | b'-' | b'/' | b'+' | b'&' | b'~')
            && !parts_head
        {
            tokens.pop();
        }
        if let [.., name, colon, part] = tokens.as_mut_slice()
            && part.kind == Kind::Suspect
            && !part.spaced
            && token.spaced
            && name.kind != Kind::Punct
            && colon.kind == Kind::Punct
            && !colon.spaced
            && self.line[colon.start as usize] == b':'
        {
            // `tool:all 1.2`, as `tool:amd64 1.2` is.
            (part.kind, part.hash, part.caps) = (Kind::Var, VAR_HASH, false);
        }
        if let Some(last) = tokens.last_mut()
            && last.kind == Kind::Var
        {
            last.end = end as u32;
            return;
        }
        self.s.tokens.push(token);
        if !parts_head {
            repeated(&mut self.s.tokens, self.line);
        }
    }

    fn token(&mut self, kind: Kind, start: usize, end: usize, hash: u64) -> Token {
        let spaced = std::mem::take(&mut self.spaced);
        Token { kind, spaced, caps: false, numbered: false, start: start as u32, end: end as u32, hash }
    }

    /// `NEW -> OPEN`, `NEW => OPEN`, `NEW → OPEN`: both are states.
    fn transition(&mut self) {
        let to = self.s.tokens.len() - 1;
        let Some(arrow) = self.arrow(to) else { return };
        let Some(from) = arrow.checked_sub(1) else { return };
        // `key => value` are a key and its value.
        let is_state = |i: usize| self.s.tokens[i].caps || self.s.tokens[i].kind == Kind::Var;
        let is_pair = self.is_mark(arrow, b'=') && !(is_state(from) && is_state(to));
        let tokens = &mut self.s.tokens;
        if tokens[from].kind == Kind::Punct || is_pair {
            return;
        }
        for i in [from, to] {
            (tokens[i].kind, tokens[i].hash, tokens[i].caps) = (Kind::Var, VAR_HASH, false);
        }
        if from > 0 && tokens[from - 1].kind == Kind::Var {
            tokens[from - 1].end = tokens[from].end;
            tokens.remove(from);
        }
    }

    /// `[ann] -> [bob]`: both are values.
    fn bracketed_transition(&mut self) {
        let tokens = &self.s.tokens;
        let Some(open) = tokens.len().checked_sub(3).filter(|open| self.is_mark(*open, b'[')) else { return };
        let Some(arrow) = self.arrow(open) else { return };
        let Some(from) = arrow.checked_sub(2).filter(|from| *from > 0) else { return };
        if !self.is_mark(arrow - 1, b']') || !self.is_mark(from - 1, b'[') {
            return;
        }
        let tokens = &mut self.s.tokens;
        for token in [from, open + 1] {
            let token = &mut tokens[token];
            if token.kind != Kind::Punct {
                (token.kind, token.hash, token.caps) = (Kind::Var, VAR_HASH, false);
            }
        }
    }

    /// Where the arrow begins that stands, between blanks, before the token at `at`.
    fn arrow(&self, at: usize) -> Option<usize> {
        let tokens = &self.s.tokens;
        let tip = at.checked_sub(1).filter(|_| tokens[at].spaced)?;
        if tokens[tip].spaced {
            let text = &self.line[tokens[tip].start as usize..tokens[tip].end as usize];
            return (text == "→".as_bytes()).then_some(tip);
        }
        let shaft = tip.checked_sub(1).filter(|shaft| tokens[*shaft].spaced)?;
        let is_shaft = self.is_mark(shaft, b'-') || self.is_mark(shaft, b'=');
        (self.is_mark(tip, b'>') && is_shaft).then_some(shaft)
    }

    fn is_mark(&self, at: usize, mark: u8) -> bool {
        let token = &self.s.tokens[at];
        token.kind == Kind::Punct && self.line[token.start as usize] == mark
    }

    /// `(54, powerd)`: what stands beside a value in a list of single words is a value; `[red, blue]` and `Set(red, blue)`
    /// are values however many.
    pub(super) fn listed(&mut self) {
        let tokens = &mut self.s.tokens;
        let mark = |t: &Token| (t.kind == Kind::Punct).then_some(self.line[t.start as usize]);
        let mut first = tokens.len() - 1;
        let (mut values, mut items) = (0, 0);
        loop {
            let [.., before, item] = &tokens[..first] else { return };
            values += usize::from(item.kind == Kind::Var);
            items += 1;
            first -= 1;
            match mark(before) {
                _ if mark(item).is_some() => return,
                Some(b',' | b'-') => first -= 1,
                Some(b'(' | b'[') => break,
                // `(task 7, elm, 12)`: the first item has a name.
                None if item.kind == Kind::Var && items > 1 => break,
                _ => return,
            }
        }
        let named = match &tokens[..first] {
            [.., of, open] => mark(open) == Some(b'(') && !open.spaced && mark(of).is_none(),
            _ => false,
        };
        let square = mark(&tokens[first - 1]) == Some(b'[');
        if items > 1 && (values > 0 || named || square) {
            let last = tokens.len() - 1;
            let end = tokens[last - 1].end;
            tokens[first] = Token { kind: Kind::Var, hash: VAR_HASH, end, caps: false, ..tokens[first] };
            tokens.swap(first + 1, last);
            tokens.truncate(first + 2);
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
    let Some((last, before)) = tokens.split_last() else { return };
    let closes = last.kind == Kind::Punct && matches!(line[last.start as usize], b')' | b']');
    let longest = if closes { MAX_BRACKETED } else { MAX_PERIOD }.min(tokens.len() / 2);
    // Where the last token stood before, the nearest first.
    let near = &before[before.len().saturating_sub(longest + 1)..];
    for (token, back) in near.iter().rev().zip(1..) {
        if token.hash == last.hash
            && let Some(length) = said_again(tokens, line, back, longest)
        {
            return tokens.truncate(length);
        }
    }
}

/// How many tokens are left without the last group of them, if it ends as the tokens do that lie so far back, and repeats those.
#[inline(never)]
fn said_again(tokens: &[Token], line: &[u8], back: usize, longest: usize) -> Option<usize> {
    let n = tokens.len();
    // Behind a mark between the groups, they are shorter by one.
    [(back - 1, 1), (back, 0)].into_iter().find_map(|(k, between)| {
        let is = (1..=longest).contains(&k)
            && n >= 2 * k + between
            && (between == 0 || parts(&tokens[n - k - 1], line))
            && is_again(&tokens[n - k..], &tokens[n - 2 * k - between..n - k - between]);
        is.then_some(n - k - between)
    })
}

/// A mark between items of a list.
fn parts(separator: &Token, line: &[u8]) -> bool {
    separator.kind == Kind::Punct && matches!(line[separator.start as usize], b',' | b';' | b'|' | b'-')
}

fn is_again(group: &[Token], before: &[Token]) -> bool {
    group.iter().zip(before).rev().all(|(a, b)| a.hash == b.hash) && group.iter().any(|t| t.kind == Kind::Var)
}
