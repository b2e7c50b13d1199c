//! The languages that people are told in.

super::words!(
    /// The language of messages to people.
    Language {
        English = "en",
        Russian = "ru",
    }
);

impl Language {
    /// The form of a noun that goes with `n`. English uses `one` and `many`; Russian also `few` (2–4, 22–24 …).
    pub fn form(self, n: i64, one: &'static str, few: &'static str, many: &'static str) -> &'static str {
        match self {
            Self::English if n == 1 => one,
            Self::English => many,
            Self::Russian => match (n % 10, n % 100) {
                (_, 11..=14) => many,
                (1, _) => one,
                (2..=4, _) => few,
                _ => many,
            },
        }
    }
}
