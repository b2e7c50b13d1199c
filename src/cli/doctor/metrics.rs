//! Reads the text format of Prometheus, as far as our own `/metrics` uses it.

/// Samples by name and labels.
pub struct Metrics(Vec<(String, String, f64)>);

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name.to_owned(), labels.trim_end_matches('}').to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum over all series of this name whose labels contain the text; none if there are none.
    pub fn sum(&self, name: &str, labels: &str) -> Option<f64> {
        let mut found = self.0.iter().filter(|(n, l, _)| n == name && l.contains(labels)).peekable();
        found.peek()?;
        Some(found.map(|(_, _, value)| value).sum())
    }

    /// As [`Metrics::sum`], as a count; 0 if there are none.
    pub fn count(&self, name: &str, labels: &str) -> u64 {
        self.sum(name, labels).unwrap_or(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_metrics_are_read() {
        crate::metrics::WATCH_PULLS.with_label_values(&["failed"]).inc_by(3);
        let metrics = Metrics::parse(&crate::metrics::render().expect("text"));
        assert!(metrics.count("aiops_watch_pulls_total", "result=\"failed\"") >= 3);
        assert_eq!(metrics.sum("aiops_no_such_thing", ""), None);
    }
}
