//! `aiops silence`: hold messages back for a while, without touching the settings.

use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Context, Failure,
    client::{Client, Items, ServerArgs},
    output,
    table::Table,
};
use crate::model::Silence;

/// Hold messages back about alerts that you know of, for a while
///
/// New incidents whose alerts a silence covers open without a message and without a question; they are kept, diagnosed and
/// listed as always. If an alert that no silence covers joins, or the silence ends, those still open are told. Messages that
/// were sent before go on being edited. For work planned ahead, see correlate.maintenance in the settings.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    Add(Add),
    List(List),
    Expire(Expire),
}

const EXAMPLES: &str = "\
Examples:
  aiops silence add service=db --for 2h --reason 'disk swap'
  aiops silence add alertname=DiskFull instance='~db-[0-9]+' --until 2026-12-02T02:00:00Z --reason 'migration'
  aiops silence list
  aiops silence expire 4f2a9c";

/// Make a silence; it needs an operator's token, ends by itself, and stands in the audit trail
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Add {
    /// What an alert's label must be; all must fit. LABEL=~REGEX takes a regular expression for the whole value. `service` is
    /// the service that aiops found, whatever label named it
    #[arg(required = true, value_name = "LABEL=VALUE", value_parser = matcher)]
    matches: Vec<(String, String)>,
    /// How long, from now on: 90m, 2h, 3d; at most 30 days
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration,
        required_unless_present = "until", conflicts_with = "until")]
    duration: Option<Duration>,
    /// When it ends: 2026-12-02T02:00:00Z
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// A sentence for the others; it is shown wherever a message is held back
    #[arg(long, short)]
    reason: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// List the silences that hold now, the newest first
#[derive(Debug, clap::Args)]
pub struct List {
    /// Those that are over, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// End a silence now; open incidents that it held back are told at once
#[derive(Debug, clap::Args)]
pub struct Expire {
    /// The id, or its last characters (at least four)
    silence: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Add(args) => add(args, context).await,
        Command::List(args) => list(args, context).await,
        Command::Expire(args) => expire(args, context).await,
    }
}

fn matcher(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((label, value)) if !label.is_empty() => Ok((label.to_owned(), value.to_owned())),
        _ => Err("write LABEL=VALUE, such as service=db".to_owned()),
    }
}

async fn add(args: Add, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let mut matches = Map::new();
    for (label, value) in args.matches {
        if matches.insert(label.clone(), Value::from(value)).is_some() {
            let message = format!("{label} is named twice; use one regular expression: {label}='~a|b'");
            return Err(Failure::new(super::Exit::Usage, message));
        }
    }
    let mut body = json!({ "matches": matches, "reason": args.reason });
    match (args.duration, args.until) {
        (Some(d), _) => body["duration"] = humantime::format_duration(d).to_string().into(),
        (None, until) => body["until"] = json!(until),
    }
    let answer: Value = client.post("/silences", &body).await?;
    if args.server.json {
        return output::print_json(&answer);
    }
    let made: Silence = serde_json::from_value(answer).map_err(anyhow::Error::from)?;
    let (id, until) = (made.short_id(), output::date_time(made.until));
    output::print(&format!("Silence {id} holds until {until}; end it with `aiops silence expire {id}`."))
}

async fn list(args: List, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let query: &[(&str, &str)] =
        if args.all { &[("limit", "1000"), ("all", "true")] } else { &[("limit", "1000")] };
    let found: Items<Silence> = client.get("/silences", query).await?;
    if args.server.json {
        return output::print_json(&found);
    }
    if found.items.is_empty() {
        return output::print("No silences.");
    }
    let mut table = Table::new(["ID", "UNTIL", "BY", "MATCHES", "REASON"]);
    for s in found.items {
        let matches: Vec<String> =
            s.matches.iter().map(|(label, m)| format!("{label}={}", m.as_str())).collect();
        let id = s.short_id().to_owned();
        table.row([id, output::date_time(s.until), s.by.to_string(), matches.join(" "), s.reason]);
    }
    output::print(&table.for_stdout())
}

async fn expire(args: Expire, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let id = super::client::path_word(&args.silence)?;
    client.delete(&format!("/silences/{id}")).await?;
    if args.server.json {
        return output::print_json(&json!({ "expired": id }));
    }
    output::print(&format!("Silence {id} is over; open incidents that it held back are told now."))
}
