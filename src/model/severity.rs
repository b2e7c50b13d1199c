//! How bad it is, from the labels that people use for it.

super::words!(
    /// Ordered: a later one is worse.
    Severity {
        Info = "info",
        Warning = "warning",
        Critical = "critical",
    }
);

impl Severity {
    /// What the labels of an alert say.
    pub fn of(labels: &super::Labels) -> Self {
        Self::from_label(labels.get("severity").or_else(|| labels.get("priority")).map(String::as_str))
    }

    /// Reads the `severity` (or `priority`) label as rules in the field spell it; unknown words count as a warning,
    /// because an alert that nobody graded still has to be seen.
    pub fn from_label(label: Option<&str>) -> Self {
        match label.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "critical" | "crit" | "page" | "emergency" | "fatal" | "error" | "high" | "disaster" | "p1"
            | "sev1" | "1" => Self::Critical,
            "info" | "information" | "informational" | "none" | "low" | "debug" | "p4" | "p5" | "sev4"
            | "sev5" => Self::Info,
            _ => Self::Warning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Severity;

    #[test]
    fn unknown_words_are_warnings() {
        assert_eq!(Severity::from_label(Some("PAGE")), Severity::Critical);
        assert_eq!(Severity::from_label(Some("low")), Severity::Info);
        assert_eq!(Severity::from_label(Some("whatever")), Severity::Warning);
        assert_eq!(Severity::from_label(None), Severity::Warning);
    }
}
