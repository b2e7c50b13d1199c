//! Reads a server's own metrics.

use std::{collections::HashMap, time::Duration};

use anyhow::Context;

/// The values of one look, by series as Prometheus' text format writes it: `aiops_inbox_depth`,
/// `aiops_intake_items_total{kind="logs"}`.
pub struct Values(HashMap<String, f64>);

impl Values {
    /// 0 for a series that is not there: counters begin there.
    pub fn get(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// The sum over all label values.
    pub fn sum(&self, metric: &str) -> f64 {
        let of = |name: &str| name == metric || name.strip_prefix(metric).is_some_and(|l| l.starts_with('{'));
        self.0.iter().filter(|(name, _)| of(name)).map(|(_, value)| value).sum()
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        Self(series.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }
}

/// Asks `base` for its metrics, again and again over one connection.
#[derive(Clone)]
pub struct Scraper {
    http: reqwest::Client,
    url: String,
}

impl Scraper {
    pub fn new(base: &str) -> Self {
        Self { http: crate::http_client::new(), url: format!("{base}/metrics") }
    }

    pub async fn values(&self) -> anyhow::Result<Values> {
        let asked = async {
            let answer = self.http.get(&self.url).send().await?.error_for_status()?;
            answer.text().await
        };
        let text = asked.await.with_context(|| format!("asking {} for its metrics", self.url))?;
        Ok(Values::parse(&text))
    }

    /// Looks every `every` until `done` says so, at most for `patience`; whether it said so.
    pub async fn until(
        &self,
        every: Duration,
        patience: Duration,
        mut done: impl FnMut(&Values) -> bool,
    ) -> anyhow::Result<bool> {
        let end = tokio::time::Instant::now() + patience;
        loop {
            if done(&self.values().await?) {
                return Ok(true);
            }
            if tokio::time::Instant::now() >= end {
                return Ok(false);
            }
            tokio::time::sleep(every).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_their_text() {
        let values = Values::parse("# HELP a b\na 3\nb{x=\"1\"} 2\nb{x=\"2 3\"} 5e1\nbc 9\n");
        assert_eq!((values.get("a"), values.get("b{x=\"2 3\"}"), values.get("z")), (3.0, 50.0, 0.0));
        assert_eq!(values.sum("b"), 52.0);
    }
}
