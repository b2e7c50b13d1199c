//! What a section uses to check itself.

/// One thing wrong with the settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Dotted path: `notify.telegram.allowed_users`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// Every section says what is wrong with itself.
pub trait Check {
    /// `at` is the section's own dotted path.
    fn check(&self, at: &str, problems: &mut Vec<Problem>);
}

/// Reports a URL that is not http(s) with a host, or that carries credentials.
pub fn url(key: &str, value: &str, problems: &mut Vec<Problem>) {
    let right = "must be a URL such as http://127.0.0.1:9090";
    match reqwest::Url::parse(value) {
        Err(e) => problems.push(Problem::new(key, format!("{value:?}: {e}; {right}"))),
        Ok(u) if !matches!(u.scheme(), "http" | "https") || u.host().is_none() => {
            problems.push(Problem::new(key, format!("{value:?} {right}")));
        }
        Ok(u) if !u.username().is_empty() || u.password().is_some() => {
            problems.push(Problem::new(key, "must not carry a user or password; use the settings beside it"));
        }
        Ok(_) => {}
    }
}

/// Reports a duration of zero.
pub fn positive(key: &str, value: std::time::Duration, problems: &mut Vec<Problem>) {
    if value.is_zero() {
        problems.push(Problem::new(key, "must be longer than 0s"));
    }
}
