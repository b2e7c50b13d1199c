//! `aiops backtest replay`: the time machine, for people and for scripts.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::{Value, json};

use super::super::{Context, Failure, exit::Exit, output, plan};
use crate::{
    config::{self, Settings},
    model::Severity,
    notify::channels::paper::{Loudness, Note},
    replay::{
        self, Action, ActionChange, Difference, Happened, How, IncidentChange, MessageChange, NOT_REPLAYED,
        Named, Recording, Totals, time,
    },
};

const HELP: &str = "\
A recording is a directory of files, or one file, of a line of JSON each, in the order of arrival. The name says what it holds:
  alerts*.jsonl     Alertmanager's webhook payloads; or one alert a line: {\"at\", \"status\", \"labels\", \"annotations\", \"startsAt\",
                    \"endsAt\"}; or {\"at\", \"prometheus\": [what Prometheus sends]}; or {\"at\", \"webhook\", \"body\"}: what a
                    webhook of intake.sources was sent. \"at\" is the time of arrival
  logs*.jsonl       as POST /api/v1/logs takes them
  metrics*.jsonl    as POST /api/v1/metrics takes them
  watches*.jsonl    as `aiops backtest record --prometheus` writes them: replayed where the settings have the same watch
  traces*.jsonl     as POST /v1/traces takes them, in JSON
  changes*.jsonl    as POST /api/v1/changes takes them
  silences*.jsonl   {\"at\", \"until\", \"matches\": {\"service\": \"db\"}, \"reason\"}
  anomalies*.jsonl  as `aiops backtest record` writes them; left out where the telemetry is there that they were found in
`aiops backtest record` makes one of your own history.

Examples:
  aiops backtest record --from 2026-10-01 --to 2026-11-01 --output october
  aiops backtest replay october                                            what the settings make of it
  aiops backtest replay october --config aiops.yaml --against changed.yaml   what a change would change
  aiops backtest replay october --against-playbooks playbooks-new --exit-code && echo nothing changes

Nothing is sent, no step is run, no model is asked, nothing is reached over the network, and no store is touched; secrets
that the settings keep in files need not be there. Not replayed:
answers of people, effects of actions, language models. The same input gives the same output.";

/// Replay recorded signals against a changed configuration, and print what would differ
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The recording: a directory, or one file
    recording: PathBuf,
    /// The changed settings; without any change the recording is replayed once, and told of
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The playbooks of the present configuration, in the place of its `playbooks.dir`
    #[arg(long, value_name = "DIR")]
    playbooks: Option<PathBuf>,
    /// The playbooks of the changed configuration, in the place of its `playbooks.dir`
    #[arg(long, value_name = "DIR")]
    against_playbooks: Option<PathBuf>,
    /// End with status 1 if anything differs
    #[arg(long)]
    exit_code: bool,
    /// So many lines of each list are printed
    #[arg(long, value_name = "N", default_value_t = 20)]
    show: usize,
    /// The whole result as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let recording = Recording::open(&args.recording)?;
    let present = settings(context.config.as_deref(), args.playbooks.as_deref())?;
    let compared = args.against.is_some() || args.against_playbooks.is_some();
    let changed = match compared {
        true => {
            let file = args.against.as_deref().or(context.config.as_deref());
            Some(settings(file, args.against_playbooks.as_deref().or(args.playbooks.as_deref()))?)
        }
        false => None,
    };
    let start = Instant::now();
    let before = replay::replay(&present, &recording).await?;
    let Some(changed) = changed else {
        tell_speed(&before, 1, start);
        return match args.json {
            true => output::print_json(&alone(&before)),
            false => output::print(&output::plain(&story(&before, args.show))),
        };
    };
    let after = replay::replay(&changed, &recording).await?;
    tell_speed(&before, 2, start);
    let difference = replay::difference(&before, &after);
    match args.json {
        true => output::print_json(&compared_json(&before, &after, &difference))?,
        false => output::print(&output::plain(&comparison(&before, &after, &difference, args.show)))?,
    }
    match args.exit_code && !difference.is_empty() {
        true => Err(Failure::new(Exit::Failed, "")),
        false => Ok(()),
    }
}

fn settings(file: Option<&Path>, playbooks: Option<&Path>) -> Result<Settings, Failure> {
    let mut settings = config::load_without_secrets(file, std::env::vars())?.settings;
    if let Some(dir) = playbooks {
        settings.playbooks.dir = dir.to_owned();
    }
    if !settings.playbooks.dir.is_dir() && playbooks.is_some() {
        let dir = settings.playbooks.dir.display();
        return Err(Failure::failed(format!("{dir} is no directory of playbooks")));
    }
    Ok(settings)
}

/// How long it took is no part of the result, which is the same each time.
fn tell_speed(happened: &Happened, times: u32, start: Instant) {
    let c = &happened.counts;
    let records = c.alerts + c.anomalies + c.log_lines + c.samples + c.spans + c.changes + c.silences;
    let seconds = start.elapsed().as_secs_f64();
    let rate = records as f64 * f64::from(times) / seconds.max(1e-3);
    eprintln!(
        "aiops: replayed {} in {seconds:.1} s, {} records a second",
        output::count(times.into(), "time", "times"),
        output::thousands(rate as u64)
    );
}

/// `1,204 alerts, 3 changes`.
fn recorded(happened: &Happened) -> String {
    let c = &happened.counts;
    let kinds = [
        (c.alerts, "alert", "alerts"),
        (c.anomalies, "recorded anomaly", "recorded anomalies"),
        (c.log_lines, "log line", "log lines"),
        (c.samples, "sample", "samples"),
        (c.spans, "span", "spans"),
        (c.changes, "change", "changes"),
        (c.silences, "silence", "silences"),
    ];
    let some = kinds.into_iter().filter(|(n, ..)| *n > 0);
    let listed: Vec<String> = some.map(|(n, one, many)| output::count(n, one, many)).collect();
    format!("{} to {}: {}", time(happened.from), time(happened.to), listed.join(", "))
}

const LIMITS: &str = "Not replayed:";

/// What the result does not know; of which watches the recording holds no samples.
fn not_replayed<'a>(happened: impl IntoIterator<Item = &'a Happened>) -> Vec<String> {
    let watches: BTreeSet<&str> =
        happened.into_iter().flat_map(|h| h.unrecorded.iter().map(String::as_str)).collect();
    let watch = |name: &str| {
        format!(
            "samples of the watch {name}, as the settings ask for it: `aiops backtest record --prometheus` gets them"
        )
    };
    NOT_REPLAYED.iter().map(|l| (*l).to_owned()).chain(watches.into_iter().map(watch)).collect()
}

// One configuration

fn story(happened: &Happened, show: usize) -> String {
    let mut out = format!("Replayed {}", recorded(happened));
    let totals = happened.totals();
    output::section(
        &mut out,
        "Totals",
        &rows(&totals).into_iter().map(|(name, n)| format!("{n:>7} {name}")).collect::<Vec<_>>(),
    );
    let mut rings: HashMap<&str, Vec<&Note>> = HashMap::new();
    for note in happened.notes.iter().filter(|n| n.loudness == Loudness::Rings) {
        rings.entry(&note.incident_id).or_default().push(note);
    }
    let mut lines = Vec::new();
    for story in &happened.stories {
        let i = &story.incident;
        lines.push(format!(
            "{} [{}] {}: {} ({})",
            time(i.opened_at),
            i.severity,
            i.service,
            i.title,
            signals(story.signals.len())
        ));
        for note in rings.get(i.id.as_str()).into_iter().flatten() {
            lines.push(format!("  {} {}: {}", time(note.at), note.channel, note.moment));
        }
        lines.extend(story.actions.iter().map(|a| format!("  {} {}", time(a.at), action(a))));
        if let Some((clause, why)) = i.held_back() {
            lines.push(format!("  held back ({clause}): {why}"));
        }
    }
    section(&mut out, "Incidents", &lines, show);
    output::section(&mut out, LIMITS, &not_replayed([happened]));
    out
}

fn alone(happened: &Happened) -> Value {
    let incidents = happened.stories.iter().map(|s| {
        let signals: Vec<Value> = s.signals.iter().map(|s| json!({"key": s.key, "at": s.at})).collect();
        json!({"incident": s.incident, "signals": signals, "actions": s.actions})
    });
    json!({
        "recording": recording(happened),
        "totals": happened.totals(),
        "incidents": incidents.collect::<Vec<_>>(),
        "messages": happened.notes,
        "not_replayed": not_replayed([happened]),
    })
}

fn recording(happened: &Happened) -> Value {
    json!({"from": happened.from, "to": happened.to, "counts": happened.counts})
}

// Two

fn comparison(before: &Happened, after: &Happened, difference: &Difference, show: usize) -> String {
    let mut out = format!("Replayed {}", recorded(before));
    output::section(&mut out, "Totals: present, changed", &table(&before.totals(), &after.totals()));
    if difference.is_empty() {
        out.push_str("\n\nNo difference.");
    }
    let incidents: Vec<String> = difference.incidents.iter().flat_map(incident_change).collect();
    section(&mut out, "Incidents", &incidents, show);
    let messages: Vec<String> = difference.messages.iter().flat_map(message_change).collect();
    section(&mut out, "Messages", &messages, show);
    let actions: Vec<String> = difference.actions.iter().flat_map(action_change).collect();
    section(&mut out, "Actions", &actions, show);
    output::section(&mut out, LIMITS, &not_replayed([before, after]));
    out
}

fn compared_json(before: &Happened, after: &Happened, difference: &Difference) -> Value {
    json!({
        "recording": recording(before),
        "before": before.totals(),
        "after": after.totals(),
        "differs": !difference.is_empty(),
        "incidents": difference.incidents,
        "messages": difference.messages,
        "actions": difference.actions,
        "not_replayed": not_replayed([before, after]),
    })
}

/// Appends a list, cut to so many entries; an entry begins without a space.
fn section(out: &mut String, heading: &str, lines: &[String], show: usize) {
    let is_entry = |line: &&String| !line.starts_with(' ');
    let entries = lines.iter().filter(is_entry).count();
    let starts = lines.iter().enumerate().filter(|(_, line)| is_entry(line)).map(|(i, _)| i);
    let cut = starts.clone().nth(show).unwrap_or(lines.len());
    let mut shown = lines[..cut].to_vec();
    if entries > show {
        shown.push(format!("… and {} more (--show N, --json)", entries - show));
    }
    output::section(out, heading, &shown);
}

/// The sums by name, in one order.
fn rows(totals: &Totals) -> Vec<(String, usize)> {
    let mut rows = vec![
        ("anomalies found".to_owned(), totals.anomalies as usize),
        ("anomalies in no incident".to_owned(), totals.anomalies_in_no_incident as usize),
        ("incidents".to_owned(), totals.incidents),
    ];
    for severity in Severity::ALL.iter().rev() {
        rows.push((format!("incidents, {severity}"), totals.by_severity.get(severity).copied().unwrap_or(0)));
    }
    rows.extend(totals.messages.iter().map(|(channel, n)| (format!("messages by {channel}"), *n)));
    rows.extend(totals.edits.iter().map(|(channel, n)| (format!("silent updates by {channel}"), *n)));
    for how in How::ALL {
        rows.push((how_many(*how).to_owned(), totals.actions.get(how).copied().unwrap_or(0)));
    }
    rows
}

fn how_many(how: How) -> &'static str {
    match how {
        How::Asks => "actions that people are asked about",
        How::Runs => "actions that run unasked",
        How::Refused => "actions refused",
    }
}

fn table(before: &Totals, after: &Totals) -> Vec<String> {
    let (a, b) = (rows(before), rows(after));
    let of =
        |rows: &[(String, usize)], name: &str| rows.iter().find(|(n, _)| n == name).map_or(0, |(_, n)| *n);
    let mut names: Vec<&String> = a.iter().map(|(name, _)| name).collect();
    for (i, (name, _)) in b.iter().enumerate() {
        if !names.contains(&name) {
            names.insert(i.min(names.len()), name);
        }
    }
    let row = |name: &String| {
        let (x, y) = (of(&a, name), of(&b, name));
        let by = match y as i64 - x as i64 {
            0 => String::new(),
            by => format!("{by:+}"),
        };
        format!("{x:>7} {y:>7} {by:>6}  {name}")
    };
    names.into_iter().map(row).collect()
}

fn signals(n: usize) -> String {
    output::count(n as u64, "signal", "signals")
}

fn named(n: &Named) -> String {
    format!("{} [{}] {}: {} ({})", time(n.opened_at), n.severity, n.service, n.title, signals(n.signals))
}

fn because(out: &mut Vec<String>, clause: &str, why: &str) {
    match (clause, why) {
        ("", "") => {}
        ("", why) | (why, "") => out.push(format!("    {why}")),
        (clause, why) => out.push(format!("    {clause}: {why}")),
    }
}

fn incident_change(change: &IncidentChange) -> Vec<String> {
    let both = change.before.len() + change.after.len() > 1;
    let mut out = match (&change.before[..], &change.after[..]) {
        ([one], []) | ([], [one]) => vec![format!("{}: {}", change.news, named(one))],
        ([_], [after]) => vec![format!("{}: {}", change.news, named(after))],
        (before, after) => vec![format!("{}: {} → {}", change.news, before.len(), after.len())],
    };
    if both && (change.before.len(), change.after.len()) != (1, 1) {
        out.extend(change.before.iter().map(|n| format!("    − {}", named(n))));
        out.extend(change.after.iter().map(|n| format!("    + {}", named(n))));
    }
    out.extend(change.changes.iter().map(|c| format!("    {c}")));
    because(&mut out, &change.clause, &change.why);
    out
}

fn message_change(m: &MessageChange) -> Vec<String> {
    let sign = if m.new { "new" } else { "gone" };
    let mut out = vec![format!("{sign}: {} {}, {}: {}", time(m.at), m.channel, m.moment, m.subject)];
    because(&mut out, &m.clause, &m.why);
    out
}

fn action(a: &Action) -> String {
    match a.how {
        How::Asks => format!("people are asked: {} ({} on {})", a.title, a.playbook, a.target),
        How::Runs => format!("runs unasked: {} ({} on {})", a.title, a.playbook, a.target),
        How::Refused => format!("refused: {}", a.title),
    }
}

fn action_change(change: &ActionChange) -> Vec<String> {
    let (line, told) = match (&change.before, &change.after) {
        (None, Some(a)) => (format!("new: {} {}", time(a.at), action(a)), a),
        (Some(a), None) => (format!("gone: {} {}", time(a.at), action(a)), a),
        (Some(a), Some(b)) if a.how == b.how => (format!("changed: {} {}", time(b.at), action(b)), b),
        (Some(a), Some(b)) => (format!("{} → {}: {} {}", a.how, b.how, time(b.at), action(b)), b),
        (None, None) => return Vec::new(),
    };
    let mut out = vec![line];
    if !change.parts.is_empty() {
        out.push(format!("    not the same: {}", change.parts.join(", ")));
        out.extend(plan_change(change));
    }
    because(&mut out, &told.clause, if told.how == How::Refused { "" } else { &told.why });
    out
}

/// The lines of the two plans that only one of them has.
fn plan_change(change: &ActionChange) -> Vec<String> {
    let lines = |action: &Option<Action>| -> Vec<String> {
        let plan = action.as_ref().and_then(|a| a.plan.as_ref());
        plan.map(plan::describe).unwrap_or_default().lines().map(|line| line.trim().to_owned()).collect()
    };
    let (before, after) = (lines(&change.before), lines(&change.after));
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("    − {line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("    + {line}"));
    gone.chain(new).collect()
}
