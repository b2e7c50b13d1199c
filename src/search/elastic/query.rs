//! Questions to `_search` as typed structures. Words from people and from log lines are values in them; there is no query
//! string, so nothing that they hold is an operator.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    config::Fields,
    model::LogLevel,
    search::{Around, Wanted},
};

/// The body of a `_search`.
#[derive(Serialize)]
pub struct Search<'a> {
    pub size: usize,
    pub track_total_hits: bool,
    pub query: Query<'a>,
    /// The server gives what it has found until then.
    pub timeout: String,
    #[serde(rename = "_source")]
    pub source: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Wish<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sort: Vec<BTreeMap<&'a str, Sort>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search_after: Option<[i64; 1]>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub aggs: BTreeMap<&'static str, Agg<'a>>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Query<'a> {
    Bool { filter: Vec<Query<'a>>, must_not: Vec<Query<'a>> },
    Term(BTreeMap<&'a str, &'a str>),
    Terms(BTreeMap<&'a str, Vec<String>>),
    Range(BTreeMap<&'a str, Range>),
    Match(BTreeMap<&'a str, Match<'a>>),
    MatchPhrase(BTreeMap<&'a str, &'a str>),
    Ids { values: Vec<&'a str> },
}

#[derive(Clone, Serialize)]
pub struct Range {
    gte: String,
    lt: String,
    format: &'static str,
}

#[derive(Clone, Serialize)]
pub struct Match<'a> {
    query: &'a str,
    operator: &'static str,
}

/// One field of a hit.
#[derive(Serialize)]
pub struct Wish<'a> {
    field: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'static str>,
}

#[derive(Serialize)]
pub struct Sort {
    order: &'static str,
    unmapped_type: &'static str,
}

/// An aggregation, with those within it.
#[derive(Serialize)]
pub struct Agg<'a> {
    #[serde(flatten)]
    kind: AggKind<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    aggs: BTreeMap<&'static str, Agg<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum AggKind<'a> {
    Filter(Query<'a>),
    Filters { filters: Vec<Query<'a>> },
    Min { field: &'a str },
    DateHistogram { field: &'a str, fixed_interval: String, min_doc_count: u32 },
}

const NANOS: &str = "strict_date_optional_time_nanos";

/// One page of lines, the newest first; `after` is the sort value under which it begins, `skip` the ids that were shown already.
pub fn lines<'a>(
    fields: &'a Fields,
    wanted: &'a Wanted,
    after: Option<i64>,
    skip: &'a [String],
) -> Search<'a> {
    let mut filter = vec![range(fields, wanted.from, wanted.to)];
    filter.extend(wanted.service.as_deref().map(|service| term(&fields.service, service)));
    filter.extend(wanted.trace.as_deref().map(|trace| term(&fields.trace, trace)));
    filter.extend(wanted.level.map(|level| at_least(fields, level)));
    if !wanted.text.trim().is_empty() {
        let query = Match { query: &wanted.text, operator: "and" };
        filter.push(Query::Match([(fields.message.as_str(), query)].into()));
    }
    let must_not = match skip {
        [] => Vec::new(),
        ids => vec![Query::Ids { values: ids.iter().map(String::as_str).collect() }],
    };
    let wish = |field: &'a String| Wish { field, format: None };
    let Fields { time, message, service, level, trace, host } = fields;
    let mut wishes: Vec<Wish<'a>> = [message, service, level, trace, host].map(wish).into();
    wishes.push(Wish { field: time, format: Some(NANOS) });
    Search {
        // One more tells whether there is a next page.
        size: wanted.limit + 1,
        fields: wishes,
        sort: vec![[(time.as_str(), Sort { order: "desc", unmapped_type: "date" })].into()],
        search_after: after.map(|value| [value]),
        ..counts(Query::Bool { filter, must_not })
    }
}

/// Lines and errors before the onset, since, and over time.
pub fn rate<'a>(fields: &'a Fields, service: &'a str, around: Around, step: Duration) -> Search<'a> {
    let errors =
        || BTreeMap::from([("errors", filtered(at_least(fields, LogLevel::Error), BTreeMap::new()))]);
    let time = fields.time.as_str();
    let histogram = AggKind::DateHistogram {
        field: time,
        fixed_interval: format!("{}s", step.as_secs().max(1)),
        min_doc_count: 1,
    };
    let first = Agg { kind: AggKind::Min { field: time }, aggs: BTreeMap::new() };
    let aggs = BTreeMap::from([
        ("before", filtered(range(fields, around.from, around.onset), errors())),
        ("since", filtered(range(fields, around.onset, around.to), errors())),
        ("steps", Agg { kind: histogram, aggs: errors() }),
        ("first", first),
    ]);
    Search { aggs, ..counts(of(fields, service, around)) }
}

/// How often each run of words occurs.
pub fn occurrences<'a>(
    fields: &'a Fields,
    service: &'a str,
    around: Around,
    texts: &'a [String],
) -> Search<'a> {
    let phrase = |text: &'a String| Query::MatchPhrase([(fields.message.as_str(), text.as_str())].into());
    let windows = BTreeMap::from([
        ("before", filtered(range(fields, around.from, around.onset), BTreeMap::new())),
        ("since", filtered(range(fields, around.onset, around.to), BTreeMap::new())),
    ]);
    let filters = texts.iter().map(phrase).collect();
    let texts = Agg { kind: AggKind::Filters { filters }, aggs: windows };
    Search { aggs: [("texts", texts)].into(), ..counts(of(fields, service, around)) }
}

fn counts(query: Query<'_>) -> Search<'_> {
    Search {
        size: 0,
        track_total_hits: false,
        query,
        timeout: String::new(),
        source: false,
        fields: Vec::new(),
        sort: Vec::new(),
        search_after: None,
        aggs: BTreeMap::new(),
    }
}

fn of<'a>(fields: &'a Fields, service: &'a str, around: Around) -> Query<'a> {
    let filter = vec![range(fields, around.from, around.to), term(&fields.service, service)];
    Query::Bool { filter, must_not: Vec::new() }
}

fn filtered<'a>(query: Query<'a>, aggs: BTreeMap<&'static str, Agg<'a>>) -> Agg<'a> {
    Agg { kind: AggKind::Filter(query), aggs }
}

fn term<'a>(field: &'a str, value: &'a str) -> Query<'a> {
    Query::Term([(field, value)].into())
}

fn range(fields: &Fields, from: Timestamp, to: Timestamp) -> Query<'_> {
    let range = Range { gte: from.to_string(), lt: to.to_string(), format: NANOS };
    Query::Range([(fields.time.as_str(), range)].into())
}

/// Every spelling of this level and worse: a keyword is as the program wrote it.
fn at_least(fields: &Fields, level: LogLevel) -> Query<'_> {
    let worse = LogLevel::ALL.iter().filter(|l| **l >= level);
    let spelled = worse.flat_map(|l| l.spellings()).flat_map(|word| {
        let mut capital = word.to_string();
        capital[..1].make_ascii_uppercase();
        [(*word).to_owned(), word.to_ascii_uppercase(), capital]
    });
    let mut words: Vec<String> = spelled.collect();
    words.sort();
    words.dedup();
    Query::Terms([(fields.level.as_str(), words)].into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_write_stays_a_value() {
        let fields = Fields::default();
        let at = |s: i64| Timestamp::from_second(s).expect("in range");
        let wanted = Wanted {
            service: Some("*".into()),
            text: "a* OR _exists_:x \"".into(),
            level: Some(LogLevel::Fatal),
            limit: 10,
            ..Wanted::between(at(0), at(60))
        };
        let body = serde_json::to_value(lines(&fields, &wanted, Some(7), &["x".into()])).expect("serialises");
        let filter = &body["query"]["bool"]["filter"];
        assert_eq!(filter[1], json!({"term": {"service.name": "*"}}));
        assert_eq!(
            filter[3],
            json!({"match": {"message": {"query": "a* OR _exists_:x \"", "operator": "and"}}})
        );
        assert!(filter[2]["terms"]["log.level"].as_array().expect("a list").contains(&json!("CRIT")));
        assert_eq!(body["query"]["bool"]["must_not"], json!([{"ids": {"values": ["x"]}}]));
        assert_eq!((&body["size"], &body["search_after"]), (&json!(11), &json!([7])));
        assert!(!body.to_string().contains("query_string"));
    }
}
