//! `aiops logs`: search the log lines.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Context, Failure,
    client::{Client, ServerArgs},
    output,
    table::Table,
};
use crate::{clock, model::LogLevel, search::Line};

const EXAMPLES: &str = "\
Examples:
  aiops logs checkout                              its lines of the last hour, the newest last
  aiops logs checkout connection refused --level error --for 15m
  aiops logs --trace 4bf92f3577b34da6a3ce929d0e0e4736
  aiops logs --from 2026-11-21T03:00:00Z --to 2026-11-21T03:10:00Z --json | jq -r '.items[].message'

The words must all occur in a line, in any order; no character is special. Secrets are masked.";

/// Search the log lines: those that came through intake, or those in Elasticsearch if it is set
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only lines of this service
    service: Option<String>,
    /// Only lines with all of these words
    text: Vec<String>,
    /// This level and worse: trace, debug, info, warn, error or fatal
    #[arg(long)]
    level: Option<LogLevel>,
    /// Only lines of this trace
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// So far back: 15m, 2h, 1d
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "1h",
        conflicts_with = "from")]
    back: Duration,
    /// From this time on: 2026-11-21T03:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// At most so many, the newest
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Deserialize, Serialize)]
struct Found {
    items: Vec<Line>,
    next: Option<String>,
    gaps: Vec<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let found = fetch(&client, &args).await?;
    if args.server.json {
        return output::print_json(&found);
    }
    for gap in &found.gaps {
        eprintln!("Not complete: {}", output::line(gap));
    }
    if found.items.is_empty() {
        return output::print("No such log line.");
    }
    let mut table = Table::new(["TIME", "LEVEL", "SERVICE", "MESSAGE"]);
    // As a log is read: downwards.
    for line in found.items.iter().rev() {
        table.row([
            output::date_time(line.at),
            line.level.map_or("?", LogLevel::as_str).to_owned(),
            line.service.clone(),
            line.message.clone(),
        ]);
    }
    output::print(&table.for_stdout())?;
    if found.next.is_some() {
        eprintln!("There are older ones: raise --limit, or look back with --to.");
    }
    Ok(())
}

/// Reads page after page until the limit is reached.
async fn fetch(client: &Client, args: &Args) -> Result<Found, Failure> {
    let to = args.to.unwrap_or_else(clock::now);
    let from = args.from.unwrap_or_else(|| clock::before(to, args.back)).to_string();
    let (to, text) = (args.to.map(|to| to.to_string()), args.text.join(" "));
    let mut found = Found { items: Vec::new(), next: None, gaps: Vec::new() };
    loop {
        let wanted = (args.limit - found.items.len() as u64).min(1000).to_string();
        let mut query = vec![("limit", wanted.as_str()), ("from", from.as_str()), ("text", text.as_str())];
        query.extend(to.as_deref().map(|to| ("to", to)));
        query.extend(args.service.as_deref().map(|s| ("service", s)));
        query.extend(args.level.map(|l| ("level", l.as_str())));
        query.extend(args.trace.as_deref().map(|t| ("trace", t)));
        let cursor = found.next.take();
        query.extend(cursor.as_deref().map(|c| ("cursor", c)));
        let page: Found = client.get("/logs", &query).await?;
        let empty = page.items.is_empty();
        found.items.extend(page.items);
        found.next = page.next;
        found.gaps.extend(page.gaps);
        found.gaps.dedup();
        if found.next.is_none() || empty || found.items.len() as u64 >= args.limit {
            return Ok(found);
        }
    }
}
