//! `aiops incident`: list, show, acknowledge, resolve.

mod show;

use clap::Subcommand;
use serde_json::Value;

use super::{
    Context, Failure,
    client::{Client, Items, ServerArgs, because, id},
    output,
    table::Table,
};
use crate::model::{Incident, IncidentState, Severity};

/// See incidents, and say what you do about them
#[derive(Debug, Subcommand)]
pub enum Command {
    List(List),
    Show(Show),
    Ack(Change),
    Resolve(Change),
}

const LIST_EXAMPLES: &str = "\
Examples:
  aiops incident list                              those that are not resolved, newest first
  aiops incident list --state resolved --limit 5
  aiops incident list --all --service checkout --json | jq -r '.items[].title'";

/// List incidents, the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub struct List {
    /// Resolved ones too
    #[arg(long, conflicts_with = "state")]
    all: bool,
    /// Only those in this state: open, acknowledged or resolved
    #[arg(long)]
    state: Option<IncidentState>,
    /// Only those of this severity: info, warning or critical
    #[arg(long)]
    severity: Option<Severity>,
    /// Only those of this service
    #[arg(long)]
    service: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
    #[command(flatten)]
    server: ServerArgs,
}

/// Show one incident: what is known, why, what was done, in order
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The id, or its last characters (at least four)
    incident: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Say that you are on it (`ack`), or that it is over (`resolve`)
#[derive(Debug, clap::Args)]
pub struct Change {
    /// The id, or its last characters (at least four)
    incident: String,
    /// A sentence for the others; it is shown on the timeline
    #[arg(long, short)]
    reason: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(args, context).await,
        Command::Show(args) => show(args, context).await,
        Command::Ack(args) => change(args, "ack", "acknowledged", context).await,
        Command::Resolve(args) => change(args, "resolve", "resolved", context).await,
    }
}

async fn list(args: List, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let found = fetch(&client, &args).await?;
    if args.server.json {
        return output::print_json(&found);
    }
    if found.items.is_empty() {
        return output::print("No incidents.");
    }
    let mut table = Table::new(["ID", "STATE", "SEVERITY", "SERVICE", "OPENED", "ALERTS", "TITLE"]);
    for i in &found.items {
        table.row([
            i.short_id().to_owned(),
            i.state.to_string(),
            i.severity.to_string(),
            i.service.clone(),
            format!("{} ago", output::ago(i.opened_at)),
            format!("{}/{}", i.firing_count, i.alert_count),
            i.title.to_string(),
        ]);
    }
    output::print(&table.for_stdout())?;
    if found.next.is_some() {
        eprintln!("There are more: raise --limit.");
    }
    Ok(())
}

/// Reads page after page until the limit is reached.
async fn fetch(client: &Client, args: &List) -> Result<Items<Incident>, Failure> {
    let state = args.state.map(|s| s.as_str());
    let mut found: Items<Incident> = Items { items: Vec::new(), next: None };
    loop {
        let wanted = (args.limit - found.items.len() as u64).min(1000).to_string();
        let mut query = vec![("limit", wanted.as_str())];
        query.extend(state.map(|s| ("state", s)));
        query.extend(args.severity.map(|s| ("severity", s.as_str())));
        query.extend(args.service.as_deref().map(|s| ("service", s)));
        if !args.all && state.is_none() {
            query.push(("open", "true"));
        }
        let cursor = found.next.take();
        query.extend(cursor.as_deref().map(|c| ("cursor", c)));
        let page: Items<Incident> = client.get("/incidents", &query).await?;
        found.items.extend(page.items);
        found.next = page.next;
        if found.next.is_none() || found.items.len() as u64 >= args.limit {
            return Ok(found);
        }
    }
}

async fn show(args: Show, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let path = format!("/incidents/{}", id(&args.incident)?);
    if args.server.json {
        return output::print_json(&client.get::<Value>(&path, &[]).await?);
    }
    let story: show::Story = client.get(&path, &[]).await?;
    output::print(&show::render(&story))
}

async fn change(args: Change, verb: &str, done: &str, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let path = format!("/incidents/{}/{verb}", id(&args.incident)?);
    let answer: Value = client.post(&path, &because(args.reason.as_deref())).await?;
    if args.server.json {
        return output::print_json(&answer);
    }
    output::print(&format!("Incident {} is {done}.", output::line(&args.incident)))
}
