//! Plain words: letters alone or digits alone, between blanks and simple marks. Most words of most lines are such, and the rules
//! of [`Cursor::special`] have nothing to say of them but what is said here; a test holds the two together.

use super::{
    Cursor, Kind, Value,
    alphabet::{ALPHA, DIGIT, hexadecimal, is_date, is_unit, letters_of},
    printed::{is_attribute, is_relation},
    word::statement,
};

impl Cursor<'_> {
    pub(super) fn word(&mut self) {
        let start = self.at;
        let (length, flags) = letters_of(&self.line[start..self.to]);
        let end = start + length;
        #[cfg(test)]
        if self.s.thorough {
            return self.special(start, end, flags);
        }
        let plain = self.value == Value::No && self.ends_plainly(start, end, flags);
        match flags {
            ALPHA if plain && self.is_text(start, end) => self.push_word(Kind::Word, start, end),
            DIGIT if plain && !self.is_after_colon() => self.push(Kind::Var, start, end),
            _ => return self.special(start, end, flags),
        }
        self.at = end;
    }

    /// Do only marks stand around it that neither belong to it nor say what it is?
    fn ends_plainly(&self, start: usize, end: usize, flags: u8) -> bool {
        if start > 0 && matches!(self.line[start - 1], b'<' | b'[' | b'(') {
            return false;
        }
        match &self.line[end..self.to] {
            [] | [b')', ..] => true,
            [b' ', rest @ ..] => !matches!(rest, [b'=' | b'[', ..]),
            [b':' | b',' | b';', rest @ ..] => matches!(rest, [] | [b' ', ..]),
            [b'=', next, ..] => {
                flags == ALPHA && !is_relation(*next) && !is_attribute(&self.line[start..end])
            }
            _ => false,
        }
    }

    /// Is this a word of the text, and none that is a value, a part of one or a label's, or begins a statement?
    fn is_text(&self, start: usize, end: usize) -> bool {
        let word = &self.line[start..end];
        let tokens = self.s.tokens.as_slice();
        let follows = match tokens.last().map(|last| last.kind) {
            Some(_) if self.is_after_colon() => false,
            Some(Kind::Var) => tokens.len() > 1 && !is_unit(word),
            Some(Kind::Punct) => statement(word).is_none(),
            _ => true,
        };
        let known = match word.len() {
            3 => is_date(word) || self.literal(word, Value::No),
            4 | 5 | 9 => self.literal(word, Value::No),
            _ => hexadecimal(word),
        };
        follows && !known
    }

    /// Does the last token begin with a colon? [`Self::is_after`] asks of marks alone; an address may begin so too, and labels are
    /// looked for before it.
    fn is_after_colon(&self) -> bool {
        self.s.tokens.last().is_some_and(|last| self.line[last.start as usize] == b':')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Scanner;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn plain_words_are_told_as_by_all_rules(parts in proptest::collection::vec(
            prop_oneof![
                4 => "[ ]{1,2}|[ -/:-@\\[-`{-~]{1,2}|[:,;] |[)\\]] | = | \\[|→ | -> ",
                2 => "[a-zA-Zé]{1,9}|[0-9]{1,4}|[a-z0-9._/-]{1,9}",
                1 => "true|nil|Jun|Mon|of|ms|KB|seconds|CN|OU|uid|reason|cause|query|statement|command|text|error|select|\
                      delete from|localhost|deadbeef|cafe|INFO|main|http|file",
                2 => "cn=[a-z]|CN=a, O=b|ou=b,uid=[0-9]|Nov 21 10:00:00 (web )?[a-z]{1,3}(\\[7\\])?: |(query|reason|command): ?[a-z0-9]|\
                      Tcp [\\[(]a=1[)\\]]|shop(>=|==|!=)1\\.2|[\\[(<][a-z]{2}[)\\]>]|f\\([0-9a-z]\\)|a -?> [0-9]|[0-9] = [0-9]|[0-9]\\[A\\]",
            ], 1..14,
        )) {
            let line = parts.concat();
            let (mut quick, mut thorough) = (Scanner::default(), Scanner { thorough: true, ..Scanner::default() });
            let of = |scanner: &mut Scanner| format!("{:?}", scanner.scan(line.as_bytes()));
            prop_assert_eq!(of(&mut quick), of(&mut thorough), "{}", line);
        }
    }
}
