//! One incident as a person reads it: what broke, since when, why we think so, what was done.

use serde::Deserialize;

use crate::{
    cli::output::{self, clock_time, date_time, line, section},
    model::{Approval, ApprovalState, Diagnosis, Evidence, Incident, Message, Run, TimelineEntry},
};

/// An incident with all that belongs to it, as the API gives it.
#[derive(Deserialize)]
pub struct Story {
    #[serde(flatten)]
    pub incident: Incident,
    #[serde(default)]
    pub timeline: Vec<TimelineEntry>,
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// Oldest first; the last one is the best.
    #[serde(default)]
    pub diagnoses: Vec<Diagnosis>,
    #[serde(default)]
    pub approvals: Vec<Approval>,
    #[serde(default)]
    pub runs: Vec<Run>,
    #[serde(default)]
    pub messages: Vec<Message>,
}

pub fn render(story: &Story) -> String {
    let mut out = head(&story.incident);
    if let Some(d) = story.diagnoses.last() {
        section(&mut out, &format!("Why we think so ({})", tier(d)), &diagnosis(d, &story.evidence));
    }
    section(&mut out, "To decide", &story.approvals.iter().filter_map(question).collect::<Vec<_>>());
    section(&mut out, "Runs", &story.runs.iter().map(run).collect::<Vec<_>>());
    section(&mut out, "Messages", &story.messages.iter().map(message).collect::<Vec<_>>());
    section(&mut out, "Timeline", &story.timeline.iter().map(entry).collect::<Vec<_>>());
    out
}

fn head(i: &Incident) -> String {
    let mut out = format!(
        "{} {}  {}\n{} on {}, since {} ({}), {} of {} alerts firing",
        i.short_id(),
        i.state.as_str().to_uppercase(),
        line(&i.title),
        i.severity,
        line(&i.service),
        date_time(i.started_at),
        match i.resolved_at {
            Some(end) =>
                format!("lasted {}", output::age(crate::clock::between(i.started_at, end).as_secs())),
            None => format!("{} ago", output::ago(i.started_at)),
        },
        i.firing_count,
        i.alert_count,
    );
    let notes = [
        i.acknowledged_by.as_ref().map(|who| format!("acknowledged by {who}")),
        i.resolved_by.as_ref().map(|who| format!("resolved by {who}")),
        i.suppressed.as_ref().map(|why| format!("messages held back: {why}")),
        i.flapping.then(|| "flapping: its alerts come and go too often to tell of each time".to_owned()),
        Some(format!("id {}", i.id)),
    ];
    for note in notes.into_iter().flatten() {
        out.push_str(&format!("\n{}", line(&note)));
    }
    out
}

fn tier(d: &Diagnosis) -> String {
    match d.model.as_str() {
        "" => format!("{}, {} ms", d.tier, d.latency_ms),
        model => format!(
            "{} {}, {} ms, {} + {} tokens, ${:.4}",
            d.tier,
            line(model),
            d.latency_ms,
            d.tokens_in,
            d.tokens_out,
            d.cost_usd
        ),
    }
}

fn diagnosis(d: &Diagnosis, evidence: &[Evidence]) -> Vec<String> {
    let mut lines = vec![line(&d.summary)];
    for claim in &d.claims {
        lines.push(format!("- {} [{}]", line(&claim.text), line(&claim.evidence.join(", "))));
    }
    for e in evidence {
        lines.push(format!("{}: {} ({})", line(&e.id), line(&e.summary), clock_time(e.observed_at)));
    }
    for m in &d.missing {
        lines.push(format!("missing: {}: {}", line(&m.source), line(&m.reason)));
    }
    lines
}

fn question(a: &Approval) -> Option<String> {
    (a.state == ApprovalState::Pending).then(|| {
        format!(
            "{}: aiops approve {}  (until {})",
            line(&a.plan.title),
            crate::model::short_id(&a.id),
            clock_time(a.expires_at)
        )
    })
}

fn run(r: &Run) -> String {
    format!(
        "{} {}: {} {}, allowed by {}",
        clock_time(r.started_at),
        line(&r.plan.title),
        r.state,
        line(&r.outcome),
        line(&r.allowed_by.to_string())
    )
}

fn message(m: &Message) -> String {
    let error = m.last_error.as_ref().map(|e| format!(": {}", line(e))).unwrap_or_default();
    format!("{}: {}, {} tries{error}", line(&m.channel), m.state, m.attempts)
}

fn entry(t: &TimelineEntry) -> String {
    let who = t.actor.as_ref().map(|a| format!(" ({})", line(&a.to_string()))).unwrap_or_default();
    format!("{} {:<14} {}{who}", clock_time(t.at), t.kind.as_str(), line(&t.text))
}
