//! What the demo shows: a story that a person can follow, or one JSON object a line.

use std::io::Write;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    summary::Summary,
    words::{self, Text},
};
use crate::{
    cli::{Failure, output, table},
    clock,
    config::Language,
    model::{TimelineEntry, TimelineKind},
};

pub struct Screen {
    json: bool,
    language: Language,
    colours: bool,
    started: Timestamp,
    width: usize,
    /// What the latest diagnosis said.
    diagnosed: String,
}

/// Where the text of a line begins.
const MARGIN: usize = 25;

#[derive(Clone, Copy)]
enum Colour {
    Dim,
    Red,
    Yellow,
    Green,
    Blue,
    Plain,
}

impl Screen {
    pub fn new(json: bool, language: Language) -> Self {
        Self {
            json,
            language,
            colours: crate::telemetry::colours(&std::io::stdout()),
            started: clock::now(),
            width: table::terminal_width().unwrap_or(110).clamp(60, 140),
            diagnosed: String::new(),
        }
    }

    pub fn text(&self, text: &Text) -> &'static str {
        text.in_language(self.language)
    }

    pub fn intro(&self) -> Result<(), Failure> {
        if self.json { Ok(()) } else { output::print(&format!("{}\n", self.text(&words::INTRO))) }
    }

    /// Something in the demo's own world.
    pub fn world(&self, kind: &str, text: &Text) -> Result<(), Failure> {
        self.show(clock::now(), kind, self.text(text), Colour::Dim, json!({}))
    }

    /// What arrived on the phone: its first lines, or the whole of it for machines.
    pub fn page(&self, at: Timestamp, text: &str, first: bool) -> Result<(), Failure> {
        if self.json {
            return self.show(at, "page", text, Colour::Blue, json!({}));
        }
        let heading = self.text(if first { &words::PAGE } else { &words::EDIT });
        let shown = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
        self.show(at, "page", &format!("{heading}: {shown}"), Colour::Blue, json!({}))
    }

    /// A diagnosis that says the same as the one before is not told in full again, but to machines.
    pub fn entry(&mut self, e: &TimelineEntry) -> Result<(), Failure> {
        let more = json!({ "incident_id": e.incident_id, "seq": e.seq, "actor": e.actor });
        let again = e.kind == TimelineKind::Diagnosed && e.text == self.diagnosed;
        if again && !self.json {
            return self.show(e.at, e.kind.as_str(), self.text(&words::AGAIN), colour(e.kind), more);
        }
        if e.kind == TimelineKind::Diagnosed {
            self.diagnosed = e.text.to_string();
        }
        self.show(e.at, e.kind.as_str(), &e.text, colour(e.kind), more)
    }

    /// Shows the exact plan and asks; without a line break after the question.
    pub fn question(&self, plan: &str) -> Result<(), Failure> {
        if self.json {
            return self.show(clock::now(), "question", plan, Colour::Yellow, json!({}));
        }
        let indented = plan.lines().map(|l| format!("         {l}")).collect::<Vec<_>>().join("\n");
        output::print(&format!("\n{indented}"))?;
        print!("         {}", self.text(&words::APPROVE));
        let _ = std::io::stdout().flush();
        Ok(())
    }

    /// `--yes` stands in for a person.
    pub fn unattended(&self) -> Result<(), Failure> {
        if self.json { Ok(()) } else { output::print(&format!("{}\n", self.text(&words::YES))) }
    }

    pub fn answered(&self) -> Result<(), Failure> {
        if self.json { Ok(()) } else { output::print("") }
    }

    pub fn summary(&self, s: &Summary) -> Result<(), Failure> {
        if self.json {
            let mut line = serde_json::to_value(s).map_err(anyhow::Error::from)?;
            line["kind"] = "summary".into();
            line["at"] = clock::now().to_string().into();
            return output::print(&line.to_string());
        }
        let seconds = |text: &Text, s: Option<f64>| {
            s.map(|s| format!("\n  {s:>6.1} s {}", self.text(text))).unwrap_or_default()
        };
        let (end, colour) = match s.healed {
            true => (&words::IT_HEALED, Colour::Green),
            false => (&words::NOT_HEALED, Colour::Red),
        };
        output::print(&format!(
            "\n{}{}{}{}{}",
            self.paint(self.text(end), colour),
            seconds(&words::TO_PAGE, s.seconds_to_page),
            seconds(&words::TO_DIAGNOSIS, s.seconds_to_diagnosis),
            seconds(&words::TO_FIX, s.seconds_to_fix),
            seconds(&words::WAITED, s.seconds_waiting_for_approval),
        ))
    }

    fn show(
        &self,
        at: Timestamp,
        kind: &str,
        text: &str,
        colour: Colour,
        more: Value,
    ) -> Result<(), Failure> {
        if self.json {
            let mut line = json!({ "at": at.to_string(), "kind": kind, "text": text });
            if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
                line.extend(more.into_iter().filter(|(_, v)| !v.is_null()));
            }
            return output::print(&line.to_string());
        }
        let passed = clock::between(self.started, at).as_secs_f64();
        let kind = self.paint(&format!("{:<15}", kind.replace('_', " ")), colour);
        let text = output::wrap(&output::line(text), self.width - MARGIN);
        output::print(&format!("{passed:>6.1}  {kind}  {}", text.join(&format!("\n{:MARGIN$}", ""))))
    }

    fn paint(&self, text: &str, colour: Colour) -> String {
        let code = match colour {
            Colour::Dim => "2",
            Colour::Red => "1;31",
            Colour::Yellow => "1;33",
            Colour::Green => "1;32",
            Colour::Blue => "1;34",
            Colour::Plain => return text.to_owned(),
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn colour(kind: TimelineKind) -> Colour {
    use TimelineKind::*;
    match kind {
        Opened | AlertFiring | AnomalyFound | Reopened | VerifyFailed | NotifyFailed => Colour::Red,
        Diagnosed | Proposed | Refused | Rejected | Expired | NeedsHuman | RolledBack | Flapping => {
            Colour::Yellow
        }
        AlertResolved | AnomalyEnded | Verified | Resolved | Approved | Acknowledged => Colour::Green,
        Evidence | Notified | RunStarted | RunCancelled | StepStarted | StepFinished | RunFinished => {
            Colour::Plain
        }
    }
}
