//! Reads a recorded incident. Every error names file and line.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use jiff::Timestamp;
use serde::Deserialize;

use super::super::csv;
use crate::{
    detect::templates::{Miner, TemplateId},
    model::{
        LogLevel,
        case::{Case, CaseChange, CaseLine, CaseSeries, CaseSpan, Gravity, Sym, id_hash},
    },
};

#[derive(Deserialize)]
struct Head {
    id: String,
    alert: Alert,
    window: Window,
}

#[derive(Deserialize)]
struct Alert {
    service: String,
    #[serde(default)]
    metric: Option<String>,
}

#[derive(Deserialize)]
struct Window {
    from: Timestamp,
    to: Timestamp,
}

/// The name of the case, and what is known of it.
pub fn case(dir: &Path) -> Result<(String, Case), String> {
    let path = dir.join("case.json");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let head: Head =
        serde_json::from_str(&text).map_err(|e| format!("{}:{}: {e}", path.display(), e.line()))?;
    if head.window.from >= head.window.to {
        return Err(format!("{}: window.from must be before window.to", path.display()));
    }
    let mut case = Case {
        alert_metric: head.alert.metric,
        from: head.window.from.as_microsecond(),
        to: head.window.to.as_microsecond(),
        ..Case::default()
    };
    case.alert_service = case.names.sym(&head.alert.service);
    let there = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    let tables = [there("metrics.csv"), there("logs.csv"), there("spans.csv")];
    if tables.iter().all(Option::is_none) {
        let dir = dir.display();
        return Err(format!("{dir}: none of metrics.csv, logs.csv and spans.csv is there"));
    }
    let [series, lines, spans] = tables;
    series.map(|path| metrics(&path, &mut case)).transpose()?;
    spans.map(|path| self::spans(&path, &mut case)).transpose()?;
    lines.map(|path| logs(&path, &mut case)).transpose()?;
    there("topology.csv").map(|path| topology(&path, &mut case)).transpose()?;
    there("changes.csv").map(|path| changes(&path, &mut case)).transpose()?;
    Ok((head.id, case))
}

fn time(text: &str) -> Result<i64, String> {
    let at: Timestamp = text.parse().map_err(|_| format!("{text:?} is no RFC 3339 time"))?;
    Ok(at.as_microsecond())
}

fn metrics(path: &Path, case: &mut Case) -> Result<(), String> {
    let mut at: HashMap<(Sym, String), usize> = HashMap::new();
    csv::read(path, ["timestamp", "service", "metric", "value"], |[when, service, metric, value]| {
        let when = time(when)?;
        let value = match value.trim() {
            // How tables write a value that is missing.
            "" => f64::NAN,
            text => text.parse().map_err(|_| format!("{value:?} is no number"))?,
        };
        let service = case.names.sym(service);
        let series = &mut case.series;
        let last = series.last().is_some_and(|s| s.service == service && s.metric == metric);
        let index = match last {
            true => series.len() - 1,
            false => *at.entry((service, metric.to_owned())).or_insert_with(|| {
                series.push(CaseSeries { service, metric: metric.to_owned(), points: Vec::new() });
                series.len() - 1
            }),
        };
        // NaN and infinity are how exporters say that there is no value.
        if value.is_finite() {
            series[index].points.push((when, value));
        }
        Ok(())
    })?;
    case.series.iter_mut().for_each(|s| s.points.sort_by_key(|p| p.0));
    Ok(())
}

/// Microseconds: 35 years, so that sums of times do not overflow.
const LONGEST: i64 = 1 << 50;

fn spans(path: &Path, case: &mut Case) -> Result<(), String> {
    let columns =
        ["trace_id", "span_id", "parent_id", "service", "operation", "start", "duration_us", "status"];
    // Collectors deliver twice now and then.
    let mut known = HashSet::new();
    csv::read_with(
        path,
        columns,
        "peer",
        |[trace, id, parent, service, operation, start, duration, status], peer| {
            let start = time(start)?;
            let duration: i64 =
                duration.parse().map_err(|_| format!("{duration:?} is no whole number of microseconds"))?;
            if trace.is_empty() || id.is_empty() {
                return Err("a span needs trace_id and span_id".into());
            }
            let [trace, id, parent] = [trace, id, parent].map(|text| id_hash(text.as_bytes()));
            let (service, operation) = (case.names.sym(service), case.names.sym(operation));
            let peer = peer.filter(|peer| !peer.is_empty()).map(|peer| case.names.sym(peer));
            if known.insert((trace, id)) {
                let error = failed(status);
                // Clocks that were set make spans that end before they begin.
                let duration = duration.clamp(0, LONGEST);
                case.spans.push(CaseSpan {
                    trace,
                    id,
                    parent,
                    service,
                    operation,
                    start,
                    duration,
                    error,
                    peer,
                });
            }
            Ok(())
        },
    )
}

/// OpenTelemetry's status (`ERROR`, 2) or an HTTP status of 500 and above.
fn failed(status: &str) -> bool {
    match status.parse::<u32>() {
        Ok(n) => n == 2 || n >= 500,
        Err(_) => status.to_ascii_lowercase().contains("err"),
    }
}

/// After the spans, for lines name them.
fn logs(path: &Path, case: &mut Case) -> Result<(), String> {
    let spans: HashSet<u64> = case.spans.iter().map(|s| s.id).collect();
    let traces: HashSet<u64> = case.spans.iter().map(|s| s.trace).collect();
    let mut mined: HashMap<Sym, Mined> = HashMap::new();
    let mut lines: Vec<(CaseLine, TemplateId)> = Vec::new();
    csv::read(path, ["timestamp", "service", "level", "message"], |[when, service, level, message]| {
        let at = time(when)?;
        let service = case.names.sym(service);
        let template = mined.entry(service).or_default().add(message);
        let named = |digits: usize, known: &HashSet<u64>| {
            ids(message, digits).find(|id| known.contains(id)).unwrap_or(0)
        };
        let (span, trace) = (named(16, &spans), named(32, &traces));
        lines.push((CaseLine { at, service, gravity: gravity(level), template: 0, span, trace }, template));
        Ok(())
    })?;
    let mut known: HashMap<(Sym, TemplateId), u32> = HashMap::new();
    for (mut line, id) in lines {
        let mined = &mined[&line.service];
        let id = mined.resolve(id);
        line.template = *known.entry((line.service, id)).or_insert_with(|| {
            case.templates.push(mined.0.text(id));
            case.templates.len() as u32 - 1
        });
        case.lines.push(line);
    }
    Ok(())
}

/// The hexadecimal numbers of so many digits in a line, which may name a span or a trace.
fn ids(message: &str, digits: usize) -> impl Iterator<Item = u64> + '_ {
    let words = message.as_bytes().split(|b| !b.is_ascii_hexdigit());
    words.filter(move |word| word.len() == digits).map(id_hash)
}

fn gravity(level: &str) -> Gravity {
    LogLevel::parse(level).map_or(Gravity::Ordinary, Gravity::from)
}

/// The live service's miner, for one service, whose template ids are final once all lines were read.
struct Mined(Miner);

impl Default for Mined {
    fn default() -> Self {
        Self(Miner::new(crate::config::Detect::default().max_templates))
    }
}

impl Mined {
    /// The first line of a message tells its event; a stack trace has one of its own for each line.
    fn add(&mut self, message: &str) -> TemplateId {
        self.0.add(message.lines().next().unwrap_or("").as_bytes()).line
    }

    fn resolve(&self, id: TemplateId) -> TemplateId {
        self.0.resolve(id)
    }
}

fn topology(path: &Path, case: &mut Case) -> Result<(), String> {
    csv::read(path, ["caller", "callee"], |[caller, callee]| {
        let edge = (case.names.sym(caller), case.names.sym(callee));
        case.topology.push(edge);
        Ok(())
    })
}

fn changes(path: &Path, case: &mut Case) -> Result<(), String> {
    csv::read(path, ["timestamp", "service", "summary"], |[when, service, what]| {
        let service = case.names.sym(service);
        case.changes.push(CaseChange { at: time(when)?, service, what: what.to_owned() });
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_in_a_line_by_their_length() {
        let line = "[4bf92f3577b34da6a3ce929d0e0e4736,00f067aa0ba902b7] done in 12ms";
        assert_eq!(ids(line, 16).collect::<Vec<_>>(), [id_hash(b"00f067aa0ba902b7")]);
        assert_eq!(ids(line, 32).count(), 1);
    }

    #[test]
    fn a_status_is_an_error_by_word_or_by_number() {
        assert!(failed("ERROR") && failed("2") && failed("503") && failed("STATUS_CODE_ERROR"));
        assert!(!failed("") && !failed("OK") && !failed("0") && !failed("404"));
    }
}
