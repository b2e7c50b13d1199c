//! The blocks that say what we propose, what was done, and what to press.

use super::{Answer, Block, Keep, Line, Part, Style, Text, Texts, fill, when};
use crate::{
    model::{
        Action, Approval, ApprovalState, Expect, IncidentState, Plan, PlanStep, Probe, Run, RunState,
        StepRecord, StepState, Verify,
    },
    notify::view::IncidentView,
};

/// The exact plan that waits for an answer. Nothing in it is clipped: whoever approves has read all of it.
pub(super) fn proposal(view: &IncidentView, style: &Style, answer: Answer) -> Option<Block> {
    let approval = view.pending()?;
    let (plan, t) = (&approval.plan, style.texts);
    let mut lines = vec![Line::new().strong(plan.title.as_str()), plan_line(approval, style)];
    lines.extend(steps(&plan.steps, t));
    lines.extend(verification(plan.verify.as_ref(), t));
    lines.extend(undo(plan, t));
    lines.push(how_to_answer(approval, t, answer));
    let too_long = vec![
        Line::new().strong(Text::clipped(&plan.title, 200)),
        Line::new().plain(fill(t.too_long, &[view.incident.short_id()])),
    ];
    let shorter = Block::new(Part::Proposal, Keep::Always, too_long).titled(t.proposal);
    Some(Block::new(Part::Proposal, Keep::Plan, lines).titled(t.proposal).or(shorter))
}

/// `restart-service on checkout-1 · plan 1a2b3c4d5e6f · expires 03:27`.
fn plan_line(approval: &Approval, style: &Style) -> Line {
    let (plan, t) = (&approval.plan, style.texts);
    let hash: String = approval.plan_hash.chars().take(12).collect();
    let [before, after] = around(t.on_target);
    let [plan_before, plan_after] = around(t.plan);
    Line::new()
        .code(plan.playbook.as_str())
        .plain(format!(" {before}"))
        .code(plan.target.as_str())
        .plain(format!("{after} · {plan_before}"))
        .code(hash)
        .plain(format!("{plan_after} · {}", fill(t.expires, &[&when::clock(approval.expires_at, style)])))
}

/// What stands before and after a template's one value.
fn around(template: &'static str) -> [&'static str; 2] {
    let (before, after) = template.split_once("{}").unwrap_or((template, ""));
    [before, after]
}

fn steps(steps: &[PlanStep], t: &Texts) -> Vec<Line> {
    let numbered =
        |(n, s): (usize, &PlanStep)| action(Line::item().plain(format!("{}. ", n + 1)), &s.action, t);
    steps.iter().enumerate().map(numbered).collect()
}

fn verification(verify: Option<&Verify>, t: &Texts) -> Vec<Line> {
    let Some(v) = verify else { return vec![Line::new().plain(t.no_verify)] };
    let [within, hold] = [v.within, v.hold].map(|d| when::duration(d, t));
    let mut lines = vec![Line::new().plain(fill(t.then_verify, &[&within, &hold]))];
    lines.extend(v.probes.iter().map(|p| probe(Line::item(), p, t)));
    lines
}

fn undo(plan: &Plan, t: &Texts) -> Vec<Line> {
    if plan.rollback.is_empty() {
        return vec![Line::new().plain(t.no_rollback)];
    }
    let mut lines = vec![Line::new().plain(t.rollback)];
    lines.extend(steps(&plan.rollback, t));
    lines
}

/// Header values stay out: they may be secrets; their names are shown.
fn action(line: Line, action: &Action, t: &Texts) -> Line {
    match action {
        Action::Command { argv } => line.code(command(argv)),
        Action::Http { method, url, headers, body, .. } => {
            let mut line = line.code(format!("{method} {url}"));
            for name in headers.keys() {
                line = line.plain(" ").code(format!("{name}: …"));
            }
            match body {
                Some(body) => line.plain(" ").code(body.to_string()),
                None => line,
            }
        }
        Action::Prometheus { query, expect } => {
            line.code(query.as_str()).plain(format!(" {}", expectation(expect, t)))
        }
        Action::Wait { duration } => line.plain(fill(t.wait, &[&when::duration(*duration, t)])),
        Action::Notify { text } => line.plain(format!("“{text}”")),
    }
}

fn probe(line: Line, probe: &Probe, t: &Texts) -> Line {
    match probe {
        Probe::Prometheus { query, expect } => {
            line.code(query.as_str()).plain(format!(" {}", expectation(expect, t)))
        }
        Probe::Http { url, expect } if expect.is_empty() => line.code(format!("GET {url}")).plain(" → 2xx"),
        Probe::Http { url, expect } => {
            let codes: Vec<String> = expect.iter().map(u16::to_string).collect();
            line.code(format!("GET {url}")).plain(format!(" → {}", codes.join(", ")))
        }
        Probe::Command { argv } => line.code(command(argv)),
    }
}

fn expectation(expect: &Expect, t: &Texts) -> String {
    match expect {
        Expect::Empty => t.expect_empty.to_owned(),
        Expect::Present => t.expect_present.to_owned(),
        Expect::Above(v) => fill(t.expect_above, &[&v.to_string()]),
        Expect::Below(v) => fill(t.expect_below, &[&v.to_string()]),
        Expect::Equals(v) => fill(t.expect_equals, &[&v.to_string()]),
    }
}

/// Arguments so that one can see where each begins and ends.
fn command(argv: &[String]) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let shown =
        |a: &String| if !a.is_empty() && a.chars().all(simple) { a.clone() } else { format!("{a:?}") };
    argv.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// What became of the last question.
pub(super) fn answered(view: &IncidentView, style: &Style) -> Option<Block> {
    let (approval, t) = (view.approval.as_ref()?, style.texts);
    let by = approval.decided_by.as_ref().map(ToString::to_string).unwrap_or_default();
    let said = match approval.state {
        ApprovalState::Approved if view.run.as_ref().is_none_or(|r| r.plan_hash != approval.plan_hash) => {
            fill(t.approved_by, &[&by])
        }
        ApprovalState::Rejected => fill(t.rejected_by, &[&by]),
        ApprovalState::Expired => t.approval_expired.to_owned(),
        _ => return None,
    };
    Some(Block::new(Part::Run, Keep::Always, vec![Line::new().plain(Text::clipped(&said, 200))]))
}

pub(super) fn run(view: &IncidentView, style: &Style) -> Option<Block> {
    let (run, t) = (view.run.as_ref()?, style.texts);
    let mut head =
        Line::new().strong(run_word(run, t)).plain(": ").plain(Text::clipped(&run.plan.title, 200));
    if !run.outcome.is_empty() {
        head = head.plain(" · ").plain(Text::clipped(&run.outcome.in_language(t.language), 300));
    }
    let allowed = Line::new().plain(Text::clipped(&fill(t.approved_by, &[&run.allowed_by.to_string()]), 160));
    let mut lines = vec![head];
    let failed = matches!(run.state, RunState::NeedsHuman | RunState::Failed | RunState::RolledBack);
    if failed && !run.plan.on_failure.is_empty() {
        lines.push(Line::new().plain(Text::clipped(&run.plan.on_failure, 300)));
    }
    lines.push(allowed);
    let short = Block::new(Part::Run, Keep::Always, lines.clone()).titled(t.run);
    lines.extend(run.steps.iter().map(|s| step_line(s, run, t)));
    Some(Block::new(Part::Run, Keep::Run, lines).titled(t.run).or(short))
}

fn run_word(run: &Run, t: &Texts) -> &'static str {
    match run.state {
        RunState::Running => t.run_running,
        RunState::NeedsHuman => t.run_needs_human,
        RunState::Verifying => t.run_verifying,
        RunState::RollingBack => t.run_rolling_back,
        RunState::Succeeded if run.plan.verify.is_none() => t.run_done_unverified,
        RunState::Succeeded => t.run_succeeded,
        RunState::Failed => t.run_failed,
        RunState::RolledBack => t.run_rolled_back,
        RunState::Cancelled => t.run_cancelled,
    }
}

fn step_line(step: &StepRecord, run: &Run, t: &Texts) -> Line {
    let sign = match step.state {
        StepState::Intended if run.state.is_final() || run.state == RunState::NeedsHuman => "❓",
        StepState::Intended => "⏳",
        StepState::Succeeded => "✔️",
        StepState::Failed => "❌",
        StepState::Unknown => "❓",
    };
    let line = Line::item().plain(format!("{sign} ")).code(Text::clipped(&step.step_id, 60));
    match step.state {
        StepState::Failed => line.plain(" ").plain(Text::clipped(&step.output, 200)),
        StepState::Unknown => line.plain(format!(" {}", t.unknown_outcome)),
        _ => line,
    }
}

fn how_to_answer(approval: &Approval, t: &Texts, answer: Answer) -> Line {
    match answer {
        Answer::Buttons => Line::new().plain(t.press),
        Answer::Commands => Line::new().plain(fill(t.press_cli, &[&approval.id])),
    }
}

/// The last line before the buttons.
pub(super) fn press(view: &IncidentView, style: &Style) -> Option<Block> {
    let untaken = view.incident.state == IncidentState::Open && view.pending().is_none();
    let line = Line::new().plain(style.texts.press_open);
    untaken.then(|| Block::new(Part::Press, Keep::Details, vec![line]))
}
