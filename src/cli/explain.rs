//! `aiops explain`: every decision about an alert or an incident, with the clause that took it.

use serde_json::Value;

use super::{
    Context, Failure,
    client::{Client, ServerArgs},
    incident::{Items, id},
    output,
};
use crate::model::Decision;

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
    let found: Items<Decision> = client.get(&path, &[]).await?;
    if found.items.is_empty() {
        return output::print(&format!(
            "Nothing was decided about {}: neither an incident nor an alert that reached this server.",
            output::line(&args.what)
        ));
    }
    output::print(&found.items.iter().map(told).collect::<Vec<_>>().join("\n"))
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
