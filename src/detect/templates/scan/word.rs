//! Words: what belongs to one, and whether it is a value on sight.

use super::{
    super::hash::numbered,
    Cursor, Kind, Value,
    alphabet::{
        ALPHA, DAYS, DELIM, DIGIT, MONTHS, SPACE, STOP, class, constant_name, exception_name, hexadecimal,
        is_rate, is_unit, is_word, letters_of,
    },
    printed::is_relation,
    said,
};

/// What a word is made of.
#[derive(Clone, Copy, Default)]
struct Read {
    /// Classes of its bytes.
    flags: u8,
    /// Dots between parts, and slashes.
    dots: usize,
    slashes: usize,
    /// It holds what words of a text do not.
    odd: bool,
    /// It has a scheme.
    url: bool,
    /// It is a list of words.
    joined: bool,
}

/// How statements of SQL begin, and what they hold too.
const STATEMENTS: [(&[u8], &[u8]); 4] =
    [(b"select", b" from "), (b"insert", b" into "), (b"update", b" set "), (b"delete", b" from ")];

/// Names of fields that hold a command.
const COMMANDS: [&[u8]; 5] = [b"command", b"cmd", b"cmdline", b"commandline", b"exec"];

/// Names of hosts, classes and packages have two dots and more.
fn is_name(word: &[u8], dots: usize) -> bool {
    dots > 1 && !constant_name(word) && !exception_name(word)
}

/// What a statement of SQL holds too that begins with this word.
pub(super) fn statement(word: &[u8]) -> Option<&'static [u8]> {
    let known = || STATEMENTS.iter().find(|(verb, _)| verb.eq_ignore_ascii_case(word));
    (5..=6).contains(&word.len()).then(known)?.map(|(_, needs)| *needs)
}

impl Cursor<'_> {
    /// Reads the word that begins with these letters, of these classes.
    pub(super) fn special(&mut self, start: usize, end: usize, flags: u8) {
        let (mut read, mut end, leader) = self.read_word(start, end, flags);
        let mut full = end;
        if leader {
            while self.byte(full) == b'.' {
                full += 1;
            }
        }
        if self.byte(full) == b'['
            && let Some(close) = self.range(full)
        {
            (end, full) = (close, close);
            read.flags |= DIGIT;
        }
        let Read { flags, dots, slashes, odd, url, .. } = read;
        let mut pattern = false;
        while end > start + 1 && matches!(self.line[end - 1], b'.' | b'!' | b'?' | b'-' | b'*') {
            // `1016_*`, `conf.d/*`: any of these.
            if self.line[end - 1] == b'*'
                && matches!(self.line[end - 2], b'_' | b'.' | b'/' | b'@' | b'-')
                && flags & (ALPHA | DIGIT) != 0
            {
                pattern = true;
                break;
            }
            end -= 1;
        }
        if dots > 0 && full == end + 1 && self.line[end] == b'.' && self.byte(full) == b']' {
            // `[shop.example.]`: a name of DNS ends with the dot of its root.
            end = full;
        }
        // `shop>=1.2`, `shop!=2.*`: a name and the versions of it that are wanted; `!=2.*` alone.
        let marks = full - usize::from(matches!(self.line[full - 1], b'~' | b'!'));
        if is_relation(self.byte(marks))
            && let Some(close) = self.versions(marks)
        {
            return self.value_until(close);
        }
        if odd && self.line[start..end].contains(&b'\\') {
            end = self.path_with_blanks(end);
        }
        let word = &self.line[start..end];
        let value = std::mem::replace(&mut self.value, Value::No);
        if value == Value::Assigned && self.spaced && self.byte(end) == b'=' && !self.spaced_assignment(start)
        {
            // `a= b=1`: the value of a is empty, and this is the next key.
            self.push(Kind::Var, start, start);
            self.spaced = true;
        }
        let path = url
            || slashes > 1
            || (slashes == 1
                && word.len() > 1
                && (word[0] == b'/' || word.starts_with(b"./") || word.starts_with(b"~/")));
        let list = read.joined && value == Value::Assigned;
        let is_value = path || odd || list || pattern;
        let variable = flags & DIGIT != 0 || is_value || self.literal(word, value) || hexadecimal(word);
        if flags & (ALPHA | DIGIT) == 0 && !variable && word != b"_" {
            // `-`, `...`: a mark, whatever its length; `****` hides a value, and after `=` it is one.
            let full_word = &self.line[start..full];
            let hidden = full_word.len() > 2 && full_word.iter().all(|b| *b == b'*')
                || value == Value::Assigned && !self.spaced;
            if word == b"." && self.spaced && self.is_after(b':') {
                // `waiting: .`: there is none.
                self.push(Kind::Var, start, start);
            }
            let ends = full >= self.to || matches!(self.byte(full), b',' | b';' | b')' | b'\n');
            let hidden = hidden || full_word == b"*" && self.is_after(b':') && ends;
            // `listens on *`: any.
            let any = full_word == b"*"
                && self.spaced
                && !self.s.tokens.is_empty()
                && class(self.byte(full)) & (ALPHA | DIGIT | DELIM) == 0;
            self.push(
                if hidden || any { Kind::Var } else { Kind::Punct },
                start,
                if hidden { full } else { start + 1 },
            );
            self.at = full;
            return;
        }
        let key = flags & (ALPHA | DIGIT) == ALPHA | DIGIT
            && self.byte(full) == b'='
            && end == full
            && !path
            && !odd
            && class(word[0]) == ALPHA
            && self.byte(full + 1) != b'=';
        if (value == Value::Assigned || self.is_after(b':')) && self.is_command_next() {
            let end = self.command_end(start);
            self.push(Kind::Var, start, end);
            self.at = end;
            return;
        }
        if value == Value::Assigned && self.is_property(start) {
            self.push(Kind::Var, start, self.to);
            self.at = self.to;
            return;
        }
        if let Some(close) = self.printed(start, end, value) {
            self.push(Kind::Var, start, close);
            self.at = close;
            return;
        }
        if matches!(word, b"u" | b"b") && self.byte(end) == b'\'' && self.repr(end) {
            return;
        }
        if let Some(text) = self.query(start, word, value) {
            self.push(Kind::Var, start, text);
            self.at = text;
            return;
        }
        // Few words follow a bracket, and what asks of such is not asked of the others.
        let opened = start > 0 && matches!(self.line[start - 1], b'<' | b'[' | b'(');
        let kind = if key {
            return self.numbered_key(start, end);
        } else if variable
            || self.calendar(word, end)
            || self.host(start, end)
            || is_name(word, dots)
            || (opened && (self.index(start, end) || self.angled(start, end) || self.speaker(start, end)))
            || (dots == 1 && self.file_or_host(start, end))
        {
            Kind::Var
        } else if (value != Value::No && self.byte(end) != b'(')
            || (value == Value::Assigned && full == end && self.closing(end).is_some())
            || (dots > 1 && !exception_name(word))
            || (opened && self.argument(start, end))
            || (self.byte(end) == b'[' && self.counted(end))
        {
            Kind::Suspect
        } else {
            Kind::Word
        };
        if kind == Kind::Var || kind == Kind::Suspect {
            // The dump of an object: `Rect(0, 0 - 4, 4)` as a value.
            if value == Value::Assigned
                && end == full
                && matches!(self.byte(end), b'(' | b'{' | b'[')
                && let Some(mut close) = self.closing(end)
            {
                // `relay=mx.shop[10.0.0.7]:25`
                while is_word(self.byte(close))
                    || self.byte(close) == b':' && class(self.byte(close + 1)) == DIGIT
                {
                    close += 1;
                }
                self.push(Kind::Var, start, close);
                self.at = close;
                return;
            }
        }
        if kind == Kind::Word && self.unit(start, end) {
            self.at = end;
        } else {
            self.push(kind, start, end);
            self.at = end;
        }
        if full > self.at {
            self.spaced = false;
            self.push(Kind::Punct, self.at, self.at + 1);
            self.at = full;
        }
    }

    /// What a word is made of, where it ends, and whether a leader (`enabled.....1`) ends it.
    fn read_word(&self, start: usize, mut end: usize, flags: u8) -> (Read, usize, bool) {
        let (mut read, mut leader) = (Read { flags, ..Read::default() }, false);
        while end < self.to {
            let byte = self.line[end];
            let sort = class(byte);
            if sort & (DELIM | SPACE | STOP) != 0 {
                if sort != DELIM || !self.belongs(byte, start, end, read) {
                    break;
                }
                read.odd |= byte == b'=';
                read.joined |= byte == b',';
            }
            if byte == b'.'
                && end > start
                && self.byte(end + 1) == b'.'
                && class(self.line[end - 1]) & (ALPHA | DIGIT) != 0
            {
                // A leader (`enabled.....1`) ends the word.
                leader = true;
                break;
            }
            read.flags |= sort;
            match byte {
                b'.' => {
                    read.dots += usize::from(
                        end > start
                            && is_word(self.byte(end + 1))
                            && self.byte(end + 1) != b'.'
                            && self.line[end - 1] != b'.',
                    )
                }
                b'/' => {
                    read.slashes += 1;
                    read.url |= end >= start + 2 && self.line[end - 1] == b'/' && self.line[end - 2] == b':';
                }
                b'\\' | b'@' => read.odd = true,
                b'$' => read.odd |= end > start,
                _ => {}
            }
            end += 1;
            let (letters, flags) = letters_of(&self.line[end..self.to]);
            read.flags |= flags;
            end += letters;
        }
        (read, end, leader)
    }

    /// `r24=…`: a key whatever its number.
    pub(super) fn numbered_key(&mut self, start: usize, end: usize) {
        self.push(Kind::Word, start, end);
        if let Some(last) = self.s.tokens.last_mut() {
            last.hash = numbered(&self.line[start..end]);
            last.numbered = true;
            self.s.said |= said(last.hash);
        }
        self.at = end;
    }

    /// Whether a delimiter inside a word does not end it.
    fn belongs(&self, byte: u8, start: usize, end: usize, read: Read) -> bool {
        let Read { flags, dots, slashes, url, joined, .. } = read;
        let next = self.byte(end + 1);
        match byte {
            _ if end == start => false,
            b'\'' => class(self.line[end - 1]) & ALPHA != 0 && class(next) & ALPHA != 0,
            b':' if next == b'/' => {
                self.byte(end + 2) == b'/' || self.line[start..end].eq_ignore_ascii_case(b"file")
            }
            b':' if next == b':' => is_word(self.byte(end + 2)),
            b':' if self.line[end - 1] == b':' => is_word(next),
            b':' if next == b'\\' => true,
            b':' if self.value == Value::Assigned => is_word(next),
            b':' if url => is_word(next),
            b',' => joined && class(next) & ALPHA != 0 || self.joins(start, end),
            b':' => {
                let left = &self.line[start..end];
                (class(next) == DIGIT
                    && (flags & DIGIT != 0
                        || dots > 0
                        || slashes > 0
                        || left == b"*"
                        || left.eq_ignore_ascii_case(b"localhost")))
                    || (flags & DIGIT != 0
                        && next.is_ascii_hexdigit()
                        && left.iter().all(|b| b.is_ascii_hexdigit() || *b == b':'))
                    || (left.len() % 3 == 2
                        && next.is_ascii_hexdigit()
                        && left.iter().all(|b| b.is_ascii_hexdigit() || *b == b':')
                        && (self.byte(end + 3) == b':' || left.len() > 2 && !is_word(self.byte(end + 3))))
            }
            b'=' | b'|' | b';' => {
                (url || slashes > 0 && self.line[start..end].contains(&b'?')) && is_word(next)
            }
            _ => false,
        }
    }

    /// `node-[40-63,70]`: a range of numbers in brackets, with what follows it.
    pub(super) fn range(&self, open: usize) -> Option<usize> {
        let mut at = open + 1;
        let mut several = self.line[open - 1] == b'-';
        while matches!(self.byte(at), b'0'..=b'9' | b'-' | b',') {
            several |= class(self.line[at]) != DIGIT;
            at += 1;
        }
        if !several || self.byte(at) != b']' || at == open + 1 {
            return None;
        }
        at += 1;
        while is_word(self.byte(at)) && at < self.to {
            at += 1;
        }
        Some(at)
    }

    /// `chdir(pwd)`: the only word in brackets that follow a name.
    pub(super) fn argument(&self, start: usize, end: usize) -> bool {
        start >= 2
            && match self.line[start - 1] {
                b'(' => self.byte(end) == b')' && class(self.line[start - 2]) & ALPHA != 0,
                b'[' => self.byte(end) == b']' && class(self.line[start - 2]) & (ALPHA | DIGIT) != 0,
                _ => false,
            }
    }

    /// `worker[7]`, up to the bracket: one of several.
    fn counted(&self, end: usize) -> bool {
        let mut at = end + 1;
        while class(self.byte(at)) == DIGIT {
            at += 1;
        }
        at > end + 1 && self.byte(at) == b']'
    }

    /// `Nov 21 10:00:00 web sshd[7]: …`: the host, between the time and what tells (RFC 3164).
    fn host(&self, start: usize, end: usize) -> bool {
        let [when] = self.s.tokens.as_slice() else { return false };
        let named = class(self.line[when.start as usize]) == ALPHA;
        let mut at = end + 1;
        while is_word(self.byte(at)) && at < self.to {
            at += 1;
        }
        let tag = when.kind == Kind::Var && start == when.end as usize + 1 && at > end + 1;
        let pid = self.byte(at) == b'[';
        if pid {
            at += 1;
            while class(self.byte(at)) == DIGIT {
                at += 1;
            }
            at += 1;
        }
        tag && self.byte(end) == b' ' && (named || pid) && self.byte(at) == b':' && self.byte(at + 1) == b' '
    }

    /// `0000:00:1d.0[A]`: a word in brackets that follow a value.
    fn index(&self, start: usize, end: usize) -> bool {
        let [.., of, _] = self.s.tokens.as_slice() else { return false };
        of.kind == Kind::Var && of.end as usize + 1 == start && self.argument(start, end)
    }

    /// Is what was read last the name of a field that holds a command with its arguments, and the mark after it?
    pub(super) fn is_command_next(&self) -> bool {
        let mut words = self.s.tokens.iter().rev().skip_while(|t| t.kind == Kind::Punct);
        words.next().is_some_and(|t| {
            let name = &self.line[t.start as usize..t.end as usize];
            t.kind == Kind::Word && COMMANDS.iter().any(|command| name.eq_ignore_ascii_case(command))
        })
    }

    /// Where a command ends that begins here: at the next field, or with the line.
    pub(super) fn command_end(&self, start: usize) -> usize {
        let text = &self.line[start..self.to];
        let text = &text[..text.iter().position(|b| *b == b'\n').unwrap_or(text.len())];
        let mut at = start;
        for word in text.split(|b| *b == b' ') {
            let name = word.iter().take_while(|b| b.is_ascii_alphabetic() || **b == b'_').count();
            if at > start && name > 0 && word.get(name) == Some(&b'=') {
                return at - 1;
            }
            at += word.len() + 1;
        }
        start + text.trim_ascii_end().len()
    }

    /// `env: java.vendor=Debian GNU/Linux`: the only value of the line, of a name with dots, is all that follows.
    fn is_property(&self, start: usize) -> bool {
        let name = self.line[..start - 1].rsplit(|b| !is_word(*b)).next().unwrap_or_default();
        let rest = &self.line[start..self.to];
        let dot = name.iter().position(|b| *b == b'.');
        dot.is_some_and(|at| at > 0 && at + 1 < name.len())
            && !rest.iter().any(|b| matches!(b, b'=' | b')' | b']' | b'}' | b'"' | b'\''))
            && !self.s.tokens[..self.s.tokens.len() - 1].iter().any(|t| self.line[t.start as usize] == b'=')
    }

    /// Where a statement of SQL ends that begins here, after a mark.
    fn query(&self, start: usize, word: &[u8], value: Value) -> Option<usize> {
        let mark = self.s.tokens.last().is_some_and(|t| t.kind == Kind::Punct);
        if !mark || value != Value::No {
            return None;
        }
        let needs = statement(word)?;
        let to = self.line[start..self.to].iter().position(|b| *b == b'\n').map_or(self.to, |at| start + at);
        let text = &self.line[start + word.len()..to];
        let found = text.windows(needs.len()).any(|window| window.eq_ignore_ascii_case(needs));
        found.then_some(to)
    }

    /// Was the `=` before `start` written with a space before it too (`a = b`)?
    pub(super) fn spaced_assignment(&self, start: usize) -> bool {
        let mut at = start;
        while at > 0 && class(self.line[at - 1]) == SPACE {
            at -= 1;
        }
        at >= 2 && self.line[at - 1] == b'=' && class(self.line[at - 2]) == SPACE
    }

    /// `C:\Program Files\x`: a word that holds a backslash goes on after a blank if what follows holds one too.
    pub(super) fn path_with_blanks(&self, mut end: usize) -> usize {
        while self.byte(end) == b' ' {
            let mut at = end + 1;
            let mut back = false;
            while at < self.to && is_word(self.line[at]) {
                back |= self.line[at] == b'\\' && at > end + 1;
                at += 1;
            }
            if !back {
                break;
            }
            end = at;
        }
        end
    }

    /// Values that programming languages write as words.
    pub(super) fn literal(&self, word: &[u8], value: Value) -> bool {
        // Most words begin with another letter.
        if !word.first().is_some_and(|b| matches!(b | 32, b't' | b'f' | b'n' | b'u' | b'l' | b'y' | b'o')) {
            return false;
        }
        if value != Value::No {
            let switches = [&b"none"[..], b"yes", b"no", b"on", b"off"];
            let known = if value == Value::Assigned { &switches[..] } else { &switches[..1] };
            if known.iter().any(|l| word.eq_ignore_ascii_case(l)) {
                return true;
            }
        }
        (4..=9).contains(&word.len())
            && [&b"true"[..], b"false", b"null", b"undefined", b"localhost"]
                .iter()
                .any(|l| word.eq_ignore_ascii_case(l))
            || word.len() == 3 && (word.eq_ignore_ascii_case(b"nil") || word.eq_ignore_ascii_case(b"nan"))
    }

    /// `Jul 01`, `Fri Jul`, and `PDT` or `pm` after a time.
    pub(super) fn calendar(&self, word: &[u8], end: usize) -> bool {
        if word.len() != 3 {
            return false;
        }
        let mut next = end;
        while self.byte(next) == b' ' || self.byte(next) == b',' {
            next += 1;
        }
        let lower = [word[0] | 32, word[1] | 32, word[2] | 32];
        if MONTHS.contains(&lower) {
            return class(self.byte(next)) == DIGIT
                || (self.line[end - 3..].len() > 3
                    && self.after_var()
                    && class(self.byte(end)) & (SPACE | DELIM) != 0);
        }
        DAYS.contains(&lower)
            && (class(self.byte(next)) == DIGIT
                || self.to > next + 3
                    && MONTHS.contains(&[
                        self.line[next] | 32,
                        self.line[next + 1] | 32,
                        self.line[next + 2] | 32,
                    ]))
    }

    pub(super) fn after_var(&self) -> bool {
        self.s.tokens.last().is_some_and(|t| t.kind == Kind::Var)
    }

    /// A unit of time, size or frequency after a number belongs to it.
    pub(super) fn unit(&mut self, start: usize, end: usize) -> bool {
        let Some(last) = self.s.tokens.last_mut() else { return false };
        if last.kind != Kind::Var
            || last.end as usize + 1 < start
            || class(self.line[last.end.max(1) as usize - 1]) & (DIGIT | ALPHA) == 0
        {
            return false;
        }
        let word = &self.line[start..end];
        if !is_rate(word) && !is_unit(word) {
            return false;
        }
        // `seconds(s)` and the like stay text.
        last.end = end as u32;
        self.spaced = false;
        true
    }
}
