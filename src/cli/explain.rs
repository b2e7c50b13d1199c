//! `aiops explain`: every decision about an alert or an incident, with the clause that took it.

use serde::Deserialize;
use serde_json::Value;

use super::{
    Context, Failure,
    client::{Client, ServerArgs, id},
    output,
};
use crate::model::{Alert, Decision, Incident};

const EXAMPLES: &str = "\
Examples:
  aiops explain 4f2a9c                by the end of an incident's id
  aiops explain cee330e11430f4ea      by an alert's fingerprint: why did it page, or why not?";

/// Tell every decision that was taken, with the setting or rule that took it, also why nothing happened
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An incident's id (or its last characters), or an alert's fingerprint
    what: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let path = format!("/explain/{}", id(&args.what)?);
    if args.server.json {
        return output::print_json(&client.get::<Value>(&path, &[]).await?);
    }
    let found: Explanation = client.get(&path, &[]).await?;
    output::print(&render(&found))
}

/// The server's answer.
#[derive(Deserialize)]
struct Explanation {
    alert: Option<Alert>,
    incident: Option<Incident>,
    items: Vec<Decision>,
}

fn render(found: &Explanation) -> String {
    let mut lines = Vec::new();
    if let Some(a) = &found.alert {
        lines.push(format!(
            "Alert {} {} ({}), {}",
            a.fingerprint,
            output::line(a.name()),
            output::line(&a.source),
            a.state
        ));
    }
    match &found.incident {
        Some(i) => lines.push(format!("Incident {} {}: {}", i.short_id(), i.state, output::line(&i.title))),
        None => lines.push("It belongs to no incident.".to_owned()),
    }
    if found.items.is_empty() {
        lines.push("Nothing was decided about it yet.".to_owned());
    }
    lines.extend(found.items.iter().map(told));
    lines.join("\n")
}

fn told(d: &Decision) -> String {
    format!(
        "{}  {:<9} {}: {}\n            by {}",
        output::clock_time(d.at),
        d.stage.as_str(),
        output::line(&d.outcome),
        output::line(&d.why),
        output::line(&d.clause)
    )
}
