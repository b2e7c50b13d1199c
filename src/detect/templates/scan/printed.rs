//! Values that are known by how libraries and languages print them: errors of the system, objects, collections, statements.

use memchr::{memchr, memchr_iter, memchr2_iter};

use super::{
    Cursor, Kind, MAX_GROUP, Value,
    alphabet::{ALPHA, DIGIT, SPACE, STOP, class, is_humped, is_level, is_word},
};

/// How the names of collections end whose items stand in brackets: `HashSet(a, b)`, `List()`.
const COLLECTIONS: [&[u8]; 9] =
    [b"Set", b"List", b"Map", b"Seq", b"Vector", b"Buffer", b"Array", b"Queue", b"Some"];

/// Names of fields that hold text up to the next field or the end of the line.
const TEXTS: [&[u8]; 6] = [b"text", b"reason", b"cause", b"detail", b"details", b"description"];

/// Attributes of distinguished names (RFC 4514).
const ATTRIBUTES: [&[u8]; 11] =
    [b"CN", b"C", b"O", b"OU", b"ST", b"L", b"DC", b"UID", b"emailAddress", b"serialNumber", b"street"];

/// Labels of why something happened, before a phrase.
const REASONS: [&[u8]; 2] = [b"reason", b"cause"];

/// Labels before a statement of a query language, which is the rest of the line.
const QUERIES: [&[u8]; 3] = [b"statement", b"query", b"sql"];

/// A mark of `<`, `>=`, `!=`, `~=`.
pub(super) fn is_relation(byte: u8) -> bool {
    matches!(byte, b'<' | b'>' | b'=' | b'!' | b'~')
}

impl Cursor<'_> {
    /// Where a value ends that begins with the word that was read, by how such values are printed.
    pub(super) fn printed(&self, start: usize, end: usize, value: Value) -> Option<usize> {
        match self.byte(end) {
            b'(' => self.object(start, end),
            b':' if &self.line[start..end] == b"error" => self.openssl_error(end),
            b'=' if let Some(close) = self.distinguished(start, end) => Some(close),
            b' ' if self.byte(end + 1) == b'='
                && let Some(close) = self.distinguished(start, end) =>
            {
                Some(close)
            }
            b'=' if value == Value::Attached && self.property(start, end) => Some(self.to),
            _ if value == Value::Assigned => self.text(start),
            b' ' if self.byte(end + 1) == b'[' => self.fields(start, end),
            _ if self.reasoned() => Some(self.phrase_end(start)),
            _ if self.stated() => Some(start + self.line[start..self.to].trim_ascii_end().len()),
            _ => None,
        }
    }

    /// Where a distinguished name ends that begins with the attribute that was read: `CN=a.example, O=Shop, C=DE`, as
    /// certificates and directories have it. One attribute alone is one only if it can be nothing else.
    fn distinguished(&self, start: usize, end: usize) -> Option<usize> {
        let mut close = self.attribute_end(start, end)?;
        let mut several = false;
        while let Some(next) = self.next_attribute(close) {
            (close, several) = (next, true);
        }
        if !several && !self.line[start..end].eq_ignore_ascii_case(b"cn") {
            return None;
        }
        while class(self.line[close - 1]) == SPACE || self.line[close - 1] == b'.' {
            close -= 1;
        }
        Some(close)
    }

    /// Where the next attribute of a distinguished name ends.
    fn next_attribute(&self, at: usize) -> Option<usize> {
        if !matches!(self.byte(at), b',' | b'/' | b'+') {
            return None;
        }
        let start = at + 1 + usize::from(self.byte(at + 1) == b' ');
        let length = self.line[start..self.to].iter().take_while(|b| b.is_ascii_alphabetic()).count();
        self.attribute_end(start, start + length)
    }

    /// Where an attribute of a distinguished name ends: before the next, or where no more of its value can stand.
    fn attribute_end(&self, start: usize, end: usize) -> Option<usize> {
        let name = &self.line[start..end];
        if !is_attribute(name) {
            return None;
        }
        let mut at = end + usize::from(self.byte(end) == b' ' && self.byte(end + 1) == b'=');
        if self.byte(at) != b'=' {
            return None;
        }
        at += 1 + usize::from(self.byte(at + 1) == b' ');
        let from = at;
        let mut blank = None;
        while at < self.to {
            match self.line[at] {
                b',' | b'/' | b'+' if self.next_is_attribute(at) => return (at > from).then_some(at),
                b' ' => blank = blank.or(Some(at)),
                b',' | b';' | b')' | b']' | b'>' | b'"' | b'\'' | b'\n' => break,
                _ => {}
            }
            at += 1;
        }
        // Of the last no more than a word is sure.
        let at = blank.unwrap_or(at);
        (at > from).then_some(at)
    }

    fn next_is_attribute(&self, at: usize) -> bool {
        let start = at + 1 + usize::from(self.byte(at + 1) == b' ');
        let length = self.line[start..self.to].iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let name = &self.line[start..start + length];
        let after = self.line[start + length..self.to].trim_ascii_start();
        after.first() == Some(&b'=') && is_attribute(name)
    }

    /// Where the text of a system's error ends: `(111: Connection refused)`, and `(13)Permission denied` before a colon.
    pub(super) fn errno(&self, start: usize) -> Option<usize> {
        let mut at = start + 1;
        while class(self.byte(at)) == DIGIT {
            at += 1;
        }
        if at == start + 1 || at > start + 4 {
            return None;
        }
        match self.byte(at) {
            b':' if self.byte(at + 1) == b' ' && class(self.byte(at + 2)) == ALPHA => {
                let end = self.closing(start)?;
                let text = &self.line[at + 1..end - 1];
                text.iter().all(|b| is_word(*b) && class(*b) != DIGIT || class(*b) == SPACE).then_some(end)
            }
            b')' if self.byte(at + 1).is_ascii_uppercase() => {
                let text = &self.line[at + 1..self.to];
                let length = text.iter().take_while(|b| is_word(**b) || **b == b' ').count();
                (text.get(length) == Some(&b':')).then_some(at + 1 + length)
            }
            _ => None,
        }
    }

    /// Where a remark ends that follows the last field of a line, `status=deferred (connection to a.example refused)`.
    pub(super) fn remark(&self, start: usize) -> Option<usize> {
        let [.., mark, _] = self.s.tokens.as_slice() else { return None };
        let after = self.spaced && mark.kind == Kind::Punct && self.line[mark.start as usize] == b'=';
        let end = if after { self.closing(start)? } else { return None };
        self.line[end..self.to].trim_ascii_end().is_empty().then_some(end)
    }

    /// Where an error of OpenSSL ends: `error:0A00010B:SSL routines::wrong version number`.
    fn openssl_error(&self, end: usize) -> Option<usize> {
        let code = self.line.get(end + 1..end + 9)?;
        if self.byte(end) != b':' || self.byte(end + 9) != b':' || !code.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let text = &self.line[end..self.to];
        let length = text.iter().take_while(|b| is_word(**b) || matches!(**b, b' ' | b':')).count();
        let text = text[..length].trim_ascii_end();
        Some(end + text.strip_suffix(b".").unwrap_or(text).len())
    }

    /// Where a printed object ends whose name was read: a collection `HashSet(a, b)`, or
    /// fields `LogSegment(from=1, size=2)`.
    fn object(&self, start: usize, end: usize) -> Option<usize> {
        let name = &self.line[start..end];
        if self.byte(end) != b'('
            || !name[0].is_ascii_uppercase()
            || !name.iter().all(u8::is_ascii_alphanumeric)
        {
            return None;
        }
        let close = self.closing(end)?;
        let inside = &self.line[end + 1..close - 1];
        let is = COLLECTIONS.iter().any(|collection| name.ends_with(collection))
            || is_humped(name) && inside.first().is_some_and(u8::is_ascii_alphabetic) && is_field(inside);
        is.then_some(close)
    }

    /// Where the fields of an object end that stand in brackets after the name of its class: `TcpNode [id=1, order=2]`.
    fn fields(&self, start: usize, end: usize) -> Option<usize> {
        let name = &self.line[start..end];
        if !is_humped(name) || !name[0].is_ascii_uppercase() || !name.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        let close = self.closing(end + 1)?;
        is_field(&self.line[end + 2..close - 1]).then_some(close)
    }

    /// Where an object ends that prints itself in angle brackets, whatever it holds: `<function save at 0x7f>`,
    /// `<Event changed[L]: old=<state a=on>, new=None>`, `<Buffer a9 da>`.
    pub(super) fn instance(&self, start: usize) -> Option<usize> {
        let apart = start == 0 || !is_word(self.line[start - 1]);
        if !apart || class(self.byte(start + 1)) != ALPHA {
            return None;
        }
        let text = &self.line[start..self.to];
        let (mut depth, mut end) = (0_usize, 0);
        for at in memchr2_iter(b'<', b'>', text) {
            match text[at] {
                b'<' => depth += 1,
                // `->`, ` => `
                _ if text[at - 1] == b'-' || text[..at].ends_with(b" =") => {}
                _ => depth -= 1,
            }
            if depth == 0 {
                end = at;
                break;
            }
        }
        let inside = text.get(1..end)?;
        let name = inside.iter().position(|b| *b == b' ')?;
        let is_class = inside[0].is_ascii_uppercase() && inside[1].is_ascii_lowercase();
        let is_module = inside[..name].contains(&b'.');
        let is_field = |at: usize| {
            let key = inside[..at].iter().rposition(|b| !is_word(*b)).unwrap_or(at);
            key + 1 < at && matches!(inside[key], b' ' | b',' | b';' | b'(' | b'[')
        };
        let is = is_class
            || is_module
            || inside.windows(6).any(|w| w == b" at 0x")
            || memchr_iter(b'=', inside).any(is_field);
        let says_more = self.s.first_text || text[end..].iter().any(|b| class(*b) == ALPHA);
        (is && says_more).then_some(start + end + 1)
    }

    /// Where requirements of versions end, which begin with a mark: `>=1.2`, `>= 1.21.1, <3`, `!=2.*,~=2.4`.
    pub(super) fn versions(&self, start: usize) -> Option<usize> {
        let (mut at, mut end, mut several, mut dots) = (start, start, false, false);
        if start > 0 && matches!(self.line[start - 1], b'-' | b'=') {
            return None;
        }
        loop {
            let mark = at;
            while is_relation(self.byte(at)) && at < mark + 2 {
                at += 1;
            }
            match &self.line[mark..at] {
                b"<" | b">" | b"<=" | b">=" | b"==" | b"!=" | b"~=" => {}
                _ => break,
            }
            at += usize::from(self.byte(at) == b' ');
            if class(self.byte(at)) != DIGIT {
                break;
            }
            let version = at;
            while class(self.byte(at)) & (ALPHA | DIGIT) != 0
                || matches!(self.byte(at), b'.' | b'*' | b'+' | b'-')
            {
                at += 1;
            }
            while self.line[at - 1] == b'.' {
                at -= 1;
            }
            dots |= self.line[version..at].contains(&b'.');
            several |= end > start;
            end = at;
            at += usize::from(self.byte(at) == b',');
            at += usize::from(self.byte(at) == b' ');
        }
        let cut = is_word(self.byte(end)) && self.byte(end) != b'.' && self.byte(end) != 0
            || self.byte(end) == b'>';
        ((several || dots) && !cut).then_some(end)
    }

    /// Does a label of a reason stand before, `closed 7 links, reason: timed out`, and text enough that it is not all?
    fn reasoned(&self) -> bool {
        let [.., label, colon] = self.s.tokens.as_slice() else { return false };
        let name = &self.line[label.start as usize..label.end as usize];
        self.line[colon.start as usize] == b':'
            && self.spaced
            && self.s.tokens.len() > 4
            && (label.kind, colon.spaced) == (Kind::Word, false)
            && REASONS.iter().any(|reason| name.eq_ignore_ascii_case(reason))
    }

    /// Where a phrase ends: before a mark that is neither inside a word nor in brackets of its own.
    fn phrase_end(&self, start: usize) -> usize {
        let text = self.line[start..self.to].trim_ascii_end();
        let mut open = 0;
        for (at, byte) in text.iter().enumerate() {
            match byte {
                b'(' | b'[' => open += 1,
                b')' | b']' if open > 0 => open -= 1,
                b',' | b';' | b')' | b']' if open == 0 => return start + at,
                b'.' if open == 0 && text.get(at + 1).is_none_or(|b| class(*b) == SPACE) => {
                    return start + at;
                }
                _ => {}
            }
        }
        start + text.len()
    }

    /// `u'text'`, a string as Python prints it; the quote is next.
    pub(super) fn repr(&mut self, quote: usize) -> bool {
        let text = &self.line[quote + 1..self.to];
        let Some(length) = text.iter().take(MAX_GROUP).position(|b| *b == b'\'') else { return false };
        let end = quote + length + 2;
        self.push(Kind::Var, self.at, end);
        self.at = end;
        true
    }

    /// Are the words around this comma one list, `red,blue`, with nothing but blanks around it, or a field's, `colours=red,blue`?
    pub(super) fn joins(&self, start: usize, comma: usize) -> bool {
        let between = class(self.line[comma - 1]) & class(self.byte(comma + 1)) & ALPHA != 0;
        let assigned = self.value == Value::Assigned && !self.spaced;
        if !between || start > 0 && class(self.line[start - 1]) != SPACE && !assigned {
            return false;
        }
        let text = &self.line[comma..self.to];
        let end = comma + text.iter().take_while(|b| is_word(**b) || **b == b',').count();
        matches!(class(self.byte(end)), SPACE | STOP) && class(self.line[end - 1]) & (ALPHA | DIGIT) != 0
    }

    /// `shop.example`, `app.js`: a host or a file, unless it is the first word, which names the event, or a method, a key.
    pub(super) fn file_or_host(&self, start: usize, end: usize) -> bool {
        let word = &self.line[start..end];
        let Some(dot) = word.iter().position(|b| *b == b'.') else { return false };
        let (name, last) = (&word[..dot], &word[dot + 1..]);
        (self.s.first_text || self.byte(end) == b'.' && class(self.byte(end + 1)) == SPACE)
            && name.len() > 1
            && last.len() > 1
            && last.iter().all(u8::is_ascii_lowercase)
            && !matches!(self.byte(end), b'(' | b'=' | b':')
    }

    /// `[ann] logged in`: the only word in the brackets that begin a line says who speaks.
    pub(super) fn speaker(&self, start: usize, end: usize) -> bool {
        let [open] = self.s.tokens.as_slice() else { return false };
        self.line[open.start as usize] == b'['
            && open.end as usize == start
            && self.byte(end) == b']'
            && self.line[start..end].iter().any(u8::is_ascii_lowercase)
            && !is_level(&self.line[start..end])
    }

    /// Is this the text between angle brackets, `<RequireAny>`?
    pub(super) fn angled(&self, start: usize, end: usize) -> bool {
        start > 0 && self.line[start - 1] == b'<' && self.byte(end) == b'>'
    }

    /// Where the value of a field ends that holds text, `text=no such object`.
    fn text(&self, start: usize) -> Option<usize> {
        let [.., key, _] = self.s.tokens.as_slice() else { return None };
        let name = &self.line[key.start as usize..key.end as usize];
        (key.kind == Kind::Word && TEXTS.iter().any(|text| name.eq_ignore_ascii_case(text)))
            .then(|| self.command_end(start))
    }

    /// Is what follows a statement, up to the end of the line: `statement: begin`?
    fn stated(&self) -> bool {
        let [.., label, colon] = self.s.tokens.as_slice() else { return false };
        let name = &self.line[label.start as usize..label.end as usize];
        self.line[colon.start as usize] == b':'
            && (label.kind, colon.spaced) == (Kind::Word, false)
            && QUERIES.iter().any(|query| name.eq_ignore_ascii_case(query))
    }

    /// `environment:java.vendor=Debian`: is a property, which is the last that the line says, attached to a colon?
    fn property(&self, start: usize, end: usize) -> bool {
        self.line[start..end].contains(&b'.') && memchr(b'=', &self.line[end + 1..self.to]).is_none()
    }
}

pub(super) fn is_attribute(name: &[u8]) -> bool {
    ATTRIBUTES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// `a=1`: do the brackets begin with a field?
fn is_field(inside: &[u8]) -> bool {
    let name = inside.iter().take_while(|b| is_word(**b)).count();
    inside.get(name) == Some(&b'=')
}
