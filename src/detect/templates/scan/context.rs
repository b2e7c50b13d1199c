//! Who speaks: groups in brackets that say nothing of the event.

use memchr::memchr_iter;

use super::{
    Cursor, Kind, MAX_BYTES, MAX_GROUP, Token,
    alphabet::{ALPHA, DIGIT, SPACE, class, is_level},
};

/// Words of a head: a level, a logger's name.
const MAX_WORDS: usize = 2;
/// Tokens before the message; and before a group that may be longer than others.
const MAX_TOKENS: usize = 10;

impl Cursor<'_> {
    /// Where a group in brackets ends that says who speaks or holds an object.
    pub(super) fn context(&self, start: usize) -> Option<usize> {
        let early = self.s.tokens.len() <= MAX_TOKENS;
        let end = self.closing_within(start, if early { MAX_BYTES } else { MAX_GROUP })?;
        (self.holds_fields(start + 1, end - 1, end) || self.is_thread(start + 1, end - 1, end)).then_some(end)
    }

    /// `ERROR:shop.cart:`, as Python prints it: no values, though colons stand there without blanks.
    pub(super) fn is_head(&self) -> bool {
        let [level, colon, rest @ ..] = self.s.tokens.as_slice() else { return false };
        let text = |t: &Token| &self.line[t.start as usize..t.end as usize];
        rest.len() <= 2 && level.kind == Kind::Word && text(colon) == b":" && is_level(text(level))
    }

    /// `[Consumer clientId=c1, groupId=g0] Left the group`: an object's fields, and not the whole message.
    fn holds_fields(&self, from: usize, to: usize, end: usize) -> bool {
        let inside = &self.line[from..to];
        let is_field = |at: usize| {
            let after = inside.get(at + 1);
            class(inside[at - 1]) & (ALPHA | DIGIT) != 0 && after.is_some_and(|b| !matches!(b, b'=' | b'>'))
        };
        memchr_iter(b'=', inside).any(|at| at > 0 && is_field(at))
            && (self.s.first_text || self.line[end..self.to].iter().any(|b| class(*b) == ALPHA))
    }

    /// `12:00:01 [main] INFO shop.Cart - …`, `2026-11-21 12:00:01 INFO [main] …`: a thread or a request, beside a level
    /// where the line begins.
    fn is_thread(&self, from: usize, to: usize, end: usize) -> bool {
        if is_level(self.line[from..to].trim_ascii()) {
            return false;
        }
        let rest = self.line[end..self.to].trim_ascii_start();
        let next = rest.split(|b| class(*b) & SPACE != 0 || *b == b':').next().unwrap_or_default();
        let level_follows = is_level(next) && rest.len() > next.len();
        self.head(&self.s.tokens).is_some_and(|level| level || level_follows)
    }

    /// `INFO [shop.Cart] (main) Saved`: where a thread ends that stands between a logger and the message.
    pub(super) fn thread(&self, start: usize) -> Option<usize> {
        let logger = matches!(self.s.tokens.last(), Some(t) if self.line[t.start as usize] == b']');
        let end = self.closing(start).filter(|_| logger && self.head(&self.s.tokens) == Some(true))?;
        (self.byte(end) == b' ' && end > start + 2).then_some(end)
    }

    /// Is the last token a ` - ` that parts a message from what stands before all messages?
    pub(super) fn parts_head(&self) -> bool {
        let [head @ .., dash] = self.s.tokens.as_slice() else { return false };
        dash.spaced && self.line[dash.start as usize] == b'-' && self.head(head) == Some(true)
    }

    /// Whether a level was among the tokens; `None` if there is more than a time, a level, and names of who speaks.
    fn head(&self, tokens: &[Token]) -> Option<bool> {
        if tokens.len() > MAX_TOKENS {
            return None;
        }
        let (mut words, mut level) = (0, false);
        for token in tokens.iter().filter(|t| matches!(t.kind, Kind::Word | Kind::Suspect)) {
            let text = &self.line[token.start as usize..token.end as usize];
            words += 1;
            if is_level(text) {
                level = true;
            } else if !level || !text.iter().any(|b| matches!(b, b'.' | b'_' | b'-')) {
                return None;
            }
        }
        (words <= MAX_WORDS).then_some(level)
    }
}
