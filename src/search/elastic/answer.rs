//! What `_search` answers, as far as it is used.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    clock,
    config::Fields,
    model::{LogLevel, Phrase, Said},
    search::{Around, Count, Line, Occurrences, Rate},
};

#[derive(Deserialize)]
pub struct Answer {
    #[serde(default)]
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    #[serde(default)]
    pub hits: Hits,
    #[serde(default)]
    aggregations: Option<Aggregations>,
}

#[derive(Deserialize)]
struct Shards {
    total: i64,
    /// Those that were skipped as empty count as well.
    successful: i64,
}

#[derive(Default, Deserialize)]
pub struct Hits {
    #[serde(default)]
    pub hits: Vec<Hit>,
}

#[derive(Deserialize)]
pub struct Hit {
    #[serde(rename = "_id")]
    pub id: String,
    #[serde(default)]
    fields: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    sort: Vec<Value>,
}

#[derive(Deserialize)]
struct Aggregations {
    before: Option<Bucket>,
    since: Option<Bucket>,
    steps: Option<Buckets>,
    first: Option<First>,
    texts: Option<Buckets>,
}

#[derive(Deserialize)]
struct Buckets {
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    /// Milliseconds since the epoch, in a histogram over time.
    key: Option<i64>,
    doc_count: u64,
    errors: Option<Box<Bucket>>,
    before: Option<Box<Bucket>>,
    since: Option<Box<Bucket>>,
}

#[derive(Deserialize)]
struct First {
    value: Option<f64>,
}

impl Bucket {
    fn count(&self) -> Count {
        Count { lines: self.doc_count, errors: self.errors.as_ref().map_or(0, |b| b.doc_count) }
    }
}

impl Answer {
    /// What it leaves out although it was asked for.
    pub fn gaps(&self, index: &str) -> Vec<Said> {
        let mut gaps: Vec<Said> = Vec::new();
        if self.shards.total == 0 {
            gaps.push(Phrase::NoSuchIndex { index: index.to_owned() }.into());
        }
        // A shard that nobody has is not counted among the failed.
        let Shards { total, successful } = self.shards;
        if successful < total {
            gaps.push(Phrase::ShardsMissing { failed: total - successful, total }.into());
        }
        if self.timed_out {
            gaps.push(Phrase::CutShort {}.into());
        }
        gaps
    }

    /// No index was asked, so there is no aggregation either.
    pub fn is_of_nobody(&self) -> bool {
        self.shards.total == 0
    }

    pub fn rate(self, around: Around, gaps: Vec<Said>) -> Option<Rate> {
        let aggs = self.aggregations?;
        let before = aggs.before?.count();
        let first = aggs.first.and_then(|f| f.value).map(|ms| clock::from_micros((ms * 1000.0) as i64));
        // What holds lines of the service only since then cannot tell how many were usual before.
        let covered = match first.filter(|_| before.lines > 0) {
            Some(first) => clock::between(first, around.onset),
            None => around.before(),
        };
        let step = |b: &Bucket| Some((clock::from_micros(b.key?.checked_mul(1000)?), b.count()));
        let steps = aggs.steps.iter().flat_map(|s| &s.buckets).filter_map(step).collect();
        Some(Rate {
            before,
            since: aggs.since?.count(),
            covered: covered.max(Duration::from_secs(1)),
            steps,
            gaps,
        })
    }

    pub fn occurrences(self) -> Option<Vec<Occurrences>> {
        let texts = self.aggregations?.texts?;
        let counts = |b: Bucket| Some((b.before?.doc_count, b.since?.doc_count));
        texts.buckets.into_iter().map(counts).collect()
    }
}

impl Hit {
    /// The number by which it was sorted: milliseconds since the epoch, or nanoseconds.
    pub fn sorted_by(&self) -> Option<i64> {
        self.sort.first()?.as_i64()
    }

    /// None if it has no time that can be read.
    pub fn line(mut self, fields: &Fields) -> Option<Line> {
        let mut text = |field: &str| match self.fields.remove(field)?.into_iter().next()? {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => Some(other.to_string()),
        };
        Some(Line {
            at: text(&fields.time)?.parse().ok()?,
            service: text(&fields.service).unwrap_or_default(),
            host: text(&fields.host).unwrap_or_default(),
            level: text(&fields.level).and_then(|word| LogLevel::parse(&word)),
            message: text(&fields.message).unwrap_or_default(),
            trace_id: text(&fields.trace),
        })
    }
}
