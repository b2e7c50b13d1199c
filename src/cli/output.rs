//! What goes to the terminal: text that cannot steer it, colours only where a person looks, times as people say them.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::Failure;
use crate::model::Language;

/// Prints text and a line break to standard output. A reader that has gone away (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("writing to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints JSON for machines, indented.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?)
}

/// Text from elsewhere without what could steer a terminal or turn its direction; line breaks and tabs stay.
pub fn plain(text: &str) -> String {
    let harmful = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect()
}

/// As [`plain`], on one line.
pub fn line(text: &str) -> String {
    plain(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Lines of at most `width` characters, broken between words; a longer word has a line of its own.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// `14:02:07` in the machine's zone.
pub fn clock_time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// `2026-11-21 14:02:07 UTC`: tables and stories name the zone.
pub fn date_time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// `7 s`, `3 min`, `2 h 5 min`, `4 d`: an age at a glance.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago that was.
pub fn ago(at: Timestamp) -> String {
    age(crate::clock::between(at, crate::clock::now()).as_secs())
}

/// `1 alert`, `1,204 alerts`.
pub fn count(n: u64, one: &'static str, many: &'static str) -> String {
    let noun = Language::English.form(i64::try_from(n).unwrap_or(i64::MAX), one, many, many);
    format!("{} {noun}", thousands(n))
}

/// `31,204`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Appends a heading and its lines, indented; nothing if there are none.
pub fn section(out: &mut String, heading: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(out, "\n\n{heading}");
    for line in lines {
        let _ = write!(out, "\n  {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b]0;owned\x07b\n\u{202e}c"), "a\u{fffd}]0;owned\u{fffd}b\n\u{fffd}c");
        assert_eq!(line(" two\n lines\t"), "two lines");
    }

    #[test]
    fn long_lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensibilities x", 5), ["incomprehensibilities", "x"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn numbers_are_grouped_and_nouns_go_with_them() {
        assert_eq!(
            [0, 1, 1204].map(|n| count(n, "alert", "alerts")),
            ["0 alerts", "1 alert", "1,204 alerts"]
        );
        assert_eq!(
            [7, 999, 1000, 31_204, 1_000_000].map(thousands),
            ["7", "999", "1,000", "31,204", "1,000,000"]
        );
    }

    #[test]
    fn ages_are_read_at_a_glance() {
        let ages = [0, 119, 120, 7199, 7500, 400_000].map(age);
        assert_eq!(ages, ["0 s", "119 s", "2 min", "119 min", "2 h 5 min", "4 d"]);
    }
}
