//! What the log search shows around the onset: how many lines there were over time, and which messages came up since.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use serde_json::json;

use super::{About, Access, Fact, Found, Source, SourceName, bounded};
use crate::{
    clock,
    model::{EvidenceKind, LogLevel, Phrase, Said, Short},
    search::{Around, Backend, Line, Occurrences, Rate, SearchError, Wanted},
};

pub(super) struct KeptLogs;

/// Lines that are read to see which messages there are.
const LINES: usize = 500;
/// Messages that are counted, and that become facts.
const COUNTED: usize = 8;
const FACTS: usize = 5;
/// Fewer than so many prove nothing.
const FEW: u64 = 3;
/// So much before the onset is not taken for usual any more.
const LEAD: Duration = Duration::from_secs(300);
const STEPS: u32 = 60;

#[async_trait]
impl Source for KeptLogs {
    fn name(&self) -> SourceName {
        SourceName::Logs
    }
    async fn gather(&self, about: &About, access: &Access) -> anyhow::Result<Found> {
        // An alert fires some time after the trouble began.
        let lead = LEAD.min(access.settings.diagnose.look_back / 6);
        let around = Around {
            from: clock::before(about.incident.started_at, access.settings.diagnose.look_back),
            onset: clock::before(about.incident.started_at, lead),
            to: clock::after(about.now, Duration::from_micros(1)),
        };
        // Two questions one after the other fit into the time.
        let within = access.settings.diagnose.evidence_timeout * 9 / 20;
        let (rate, lines) =
            tokio::join!(rate(about, access, around, within), messages(about, access, around, within));
        let mut found = Found::default();
        for part in [rate, lines] {
            match part {
                Ok(part) => {
                    found.facts.extend(part.facts);
                    found.missing.extend(part.missing);
                }
                Err(SearchError::Unavailable(why)) => found.missing.push(why),
                Err(e @ SearchError::Cursor) => return Err(e.into()),
            }
        }
        // One word for one cause.
        found.missing.sort_by(|a, b| a.as_str().cmp(b));
        found.missing.dedup();
        Ok(found)
    }
}

async fn rate(
    about: &About,
    access: &Access,
    around: Around,
    within: Duration,
) -> Result<Found, SearchError> {
    let step = ((around.before() + around.since()) / STEPS).max(Duration::from_secs(1));
    let service = &about.incident.service;
    let rate = access.logs.rate(service, around, step, within).await?;
    let facts = rate_fact(service, around, &rate).into_iter().collect();
    Ok(Found { facts, missing: rate.gaps })
}

fn rate_fact(service: &str, around: Around, rate: &Rate) -> Option<Fact> {
    if rate.since.lines + rate.before.lines == 0 {
        return None;
    }
    let minute = |count: u64, time: Duration| figure(count as f64 * 60.0 / time.as_secs_f64().max(1.0));
    let lines = minute(rate.since.lines, around.since());
    let errors = minute(rate.since.errors, around.since());
    let service = service.to_owned();
    let said = if rate.covered < Duration::from_secs(60) {
        Phrase::LogRateNow { service: service.clone(), lines, errors }
    } else {
        let before = minute(rate.before.lines, rate.covered);
        let errors_before = minute(rate.before.errors, rate.covered);
        Phrase::LogRate { service: service.clone(), lines, errors, before, errors_before }
    };
    // Told anew when the time has doubled, so that a first glance does not stand for all that follows.
    let age = around.since().as_secs().max(1).ilog2();
    let points: Vec<_> =
        rate.steps.iter().map(|(at, c)| json!([at.as_second(), c.lines, c.errors])).collect();
    Some(Fact {
        kind: EvidenceKind::LogRate,
        source: SourceName::Logs,
        summary: said.into(),
        data: json!({ "id": format!("rate {service} {age}"), "since": rate.since, "before": rate.before, "points": points }),
        service,
        observed_at: around.onset,
    })
}

/// Warnings and worse whose messages are more frequent since the onset than before it.
async fn messages(
    about: &About,
    access: &Access,
    around: Around,
    within: Duration,
) -> Result<Found, SearchError> {
    if is_in_memory(about, access, around) {
        return Ok(Found::default());
    }
    let service = &about.incident.service;
    let wanted = Wanted {
        service: Some(service.clone()),
        level: Some(LogLevel::Warn),
        limit: LINES,
        ..Wanted::between(around.onset, around.to)
    };
    let lines = access.logs.lines(&wanted, within).await?;
    let mut groups = group(lines.lines);
    groups.truncate(COUNTED);
    let texts: Vec<String> = groups.iter().map(|g| g.words.clone()).collect();
    let counts = match texts.is_empty() {
        true => Vec::new(),
        false => access.logs.occurrences(service, around, &texts, within).await?,
    };
    let told = groups.iter().zip(counts).filter(|(_, counts)| is_more(*counts, around));
    let facts = told.take(FACTS).map(|(group, counts)| fact(service, group, counts, around)).collect();
    Ok(Found { facts, missing: lines.gaps })
}

/// The detectors saw the same lines that the embedded search keeps, and judge them better as long as they remember them.
fn is_in_memory(about: &About, access: &Access, around: Around) -> bool {
    let recent = || access.telemetry.recent(&about.incident.service, around.from, around.to);
    access.logs.backend() == Some(Backend::Sqlite) && !recent().templates.is_empty()
}

/// More than three times as many as the time before lets expect, and more than by chance.
fn is_more((before, since): Occurrences, around: Around) -> bool {
    let expected = before as f64 * around.since().as_secs_f64() / around.before().as_secs_f64().max(1.0);
    since >= FEW && since as f64 > 3.0 * expected && since as f64 - expected > 3.0 * expected.sqrt()
}

fn fact(service: &str, group: &Group, (before, since): Occurrences, around: Around) -> Fact {
    let (level, count, template) = (group.level.to_string(), since.to_string(), group.template.clone());
    let mut said: Said = match before {
        0 => Phrase::LinesAroundOnsetOnly { level, count, template },
        before => {
            let (before, window) = (before.to_string(), Short(around.before()));
            Phrase::LinesAroundOnset { level, count, before, window, template }
        }
    }
    .into();
    if let Some(trace) = group.traces.first() {
        said = Phrase::OfTrace { what: said, trace: trace.clone() }.into();
    }
    Fact {
        kind: EvidenceKind::LogLine,
        source: SourceName::Logs,
        service: service.to_owned(),
        summary: said,
        data: json!({
            "id": format!("message {}", group.template),
            "level": group.level,
            "count": since,
            "before": before,
            "sample": group.sample,
            "traces": group.traces,
            "hosts": group.hosts,
        }),
        observed_at: group.first,
    }
}

/// Lines of one statement of the program.
#[derive(Debug, PartialEq)]
struct Group {
    /// What changes from line to line is `<*>`.
    template: String,
    /// The longest run of words that do not change: what is counted.
    words: String,
    level: LogLevel,
    lines: usize,
    sample: String,
    first: jiff::Timestamp,
    traces: Vec<String>,
    hosts: Vec<String>,
}

const MAX_TEMPLATE: usize = 200;
const MAX_WORDS: usize = 10;
const MAX_NAMES: usize = 5;

/// The most frequent first. Lines whose level is not known are not judged.
fn group(lines: Vec<Line>) -> Vec<Group> {
    let mut groups: HashMap<String, Group> = HashMap::new();
    for line in lines {
        let Some(level) = line.level else { continue };
        let (template, words) = shape(&line.message);
        if words.is_empty() {
            continue;
        }
        let group = groups.entry(template).or_insert_with_key(|template| Group {
            template: template.clone(),
            words,
            level,
            lines: 0,
            sample: bounded(&line.message, 500),
            first: line.at,
            traces: Vec::new(),
            hosts: Vec::new(),
        });
        group.lines += 1;
        group.level = group.level.max(level);
        group.first = group.first.min(line.at);
        note(&mut group.traces, line.trace_id.unwrap_or_default());
        note(&mut group.hosts, line.host);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|a, b| {
        (b.lines, b.level).cmp(&(a.lines, a.level)).then_with(|| a.template.cmp(&b.template))
    });
    groups
}

fn note(names: &mut Vec<String>, name: String) {
    if !name.is_empty() && names.len() < MAX_NAMES && !names.contains(&name) {
        names.push(name);
    }
}

/// A message's template and its longest run of constant words. A word with a digit, or masked, is taken to change.
fn shape(message: &str) -> (String, String) {
    let changes =
        |word: &str| word.contains(|c: char| c.is_ascii_digit()) || word.contains(crate::redact::MASK);
    let (mut template, mut runs): (Vec<&str>, Vec<Vec<&str>>) = (Vec::new(), vec![Vec::new()]);
    let line = bounded(message, 1000);
    for word in line.split_whitespace() {
        match changes(word) {
            true if template.last() == Some(&"<*>") => {}
            true => {
                template.push("<*>");
                runs.push(Vec::new());
            }
            false => {
                template.push(word);
                let run = runs.last_mut().expect("there is always one");
                if run.len() == MAX_WORDS {
                    runs.push(vec![word]);
                } else {
                    run.push(word);
                }
            }
        }
    }
    let longest = runs.iter().max_by_key(|run| run.iter().map(|w| w.len()).sum::<usize>());
    (bounded(&template.join(" "), MAX_TEMPLATE), longest.map(|run| run.join(" ")).unwrap_or_default())
}

/// `0`, `0.4`, `37`, `1200`.
fn figure(v: f64) -> String {
    if v >= 10.0 || v == v.trunc() { format!("{v:.0}") } else { format!("{v:.1}") }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn around(before: i64, since: i64) -> Around {
        let at = |s: i64| Timestamp::from_second(1_800_000_000 + s).expect("in range");
        Around { from: at(-before), onset: at(0), to: at(since) }
    }

    #[test]
    fn a_message_is_known_by_the_words_that_do_not_change() {
        let (template, words) = shape("order 4711 of user7: cannot reach db at 10.0.0.1:5432 after 3 tries");
        assert_eq!(template, "order <*> of <*> cannot reach db at <*> after <*> tries");
        assert_eq!(words, "cannot reach db at");
        assert_eq!(shape("12345").1, "");
    }

    #[test]
    fn what_was_as_frequent_before_is_no_news() {
        let (long, short) = (around(1800, 60), around(1800, 1800));
        assert!(is_more((0, 3), long));
        assert!(!is_more((0, 2), long), "too few");
        assert!(is_more((30, 20), long), "1 a minute became 20");
        assert!(!is_more((300, 20), long), "10 a minute became 20");
        assert!(!is_more((300, 310), short));
        assert!(is_more((10, 310), short));
    }

    #[test]
    fn a_rate_needs_time_and_says_how_it_was_before() {
        let counts = |lines, errors| crate::search::Count { lines, errors };
        let rate = |covered| Rate {
            before: counts(600, 3),
            since: counts(240, 120),
            covered: Duration::from_secs(covered),
            ..Rate::default()
        };
        assert_eq!(rate_fact("shop", around(1800, 5), &Rate::default()), None);
        let fact = rate_fact("shop", around(1800, 120), &rate(1800)).expect("there are lines");
        let said =
            "shop logs 120 lines a minute around the onset, 60 of them errors; before it 20, 0.1 errors";
        assert_eq!(fact.summary, said);
        let fact = rate_fact("shop", around(1800, 120), &rate(0)).expect("there are lines");
        assert_eq!(fact.summary, "shop logs 120 lines a minute around the onset, 60 of them errors");
    }
}
