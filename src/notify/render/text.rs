//! Text that is not markup: whatever comes from outside passes through here, and only a channel's writer turns it into
//! markup, escaped.

/// Plain text, never markup. Control characters and those that change the direction or hide others are replaced, so that
/// what is shown is what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The whole text on one line.
    pub fn new(raw: &str) -> Self {
        Self(raw.chars().map(visible).collect())
    }
    /// At most `max` characters, the last one `…` if there was more.
    pub fn clipped(raw: &str, max: usize) -> Self {
        let raw = raw.trim();
        if raw.chars().count() <= max {
            return Self::new(raw);
        }
        let mut cut: String = raw.chars().take(max.saturating_sub(1)).map(visible).collect();
        cut.truncate(cut.trim_end().len());
        cut.push('…');
        Self(cut)
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(raw: &str) -> Self {
        Self::new(raw)
    }
}

impl From<String> for Text {
    fn from(raw: String) -> Self {
        Self::new(&raw)
    }
}

fn visible(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        // Direction marks and overrides, zero-width characters, line separators, tag characters.
        '\u{061c}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => '\u{fffd}',
        '\u{e0000}'..='\u{e007f}' => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_turns_text_is_replaced() {
        assert_eq!(
            Text::new("rm \u{202e}txt.exe\u{200b}\u{0}").as_str(),
            "rm \u{fffd}txt.exe\u{fffd}\u{fffd}"
        );
        assert_eq!(Text::new("a\r\nb\tc").as_str(), "a  b c");
    }

    #[test]
    fn clipping_counts_characters() {
        assert_eq!(Text::clipped("проверка", 8).as_str(), "проверка");
        assert_eq!(Text::clipped("проверка", 5).as_str(), "пров…");
        assert_eq!(Text::clipped("ab  cd", 4).as_str(), "ab…");
    }
}
