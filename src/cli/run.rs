//! `aiops run`: runs of playbooks, and the answer that a run waits for.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Context, Exit, Failure,
    client::{Client, Items, ServerArgs, because, id},
    output,
    plan::describe,
    table::Table,
};
use crate::{
    model::{Run, RunState, short_id},
    steer::Answer,
};

const EXAMPLES: &str = "\
Examples:
  aiops run list --state needs_human
  aiops run show 4f2a9c                what was done, step by step, and what it said
  aiops run settle 4f2a9c continue     the step is done, go on with the next one
  aiops run cancel 4f2a9c -r 'wrong host'";

/// See runs of playbooks, cancel one, and answer one that waits for a human
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    List(List),
    Show(Show),
    Settle(Settle),
    Cancel(Cancel),
}

/// List runs, the newest first
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only those in this state: running, needs_human, verifying, rolling_back, succeeded, failed, rolled_back or cancelled
    #[arg(long)]
    state: Option<RunState>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    server: ServerArgs,
}

/// Show one run: its plan, and its journal
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The id, or its last characters (at least four)
    run: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Say how a run goes on: a step's outcome is unknown, or the kill switch stopped it
#[derive(Debug, clap::Args)]
pub struct Settle {
    /// The id, or its last characters (at least four)
    run: String,
    /// continue (the step is done), retry (do it again), roll_back (undo) or abort (do nothing more)
    answer: Answer,
    #[command(flatten)]
    server: ServerArgs,
}

/// Stop a run before its next step; a step under way is cut off, and what was done stays done
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// The id, or its last characters (at least four)
    run: String,
    /// A sentence for the others
    #[arg(long, short)]
    reason: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(args, context).await,
        Command::Show(args) => show(args, context).await,
        Command::Settle(args) => settle(args, context).await,
        Command::Cancel(args) => cancel(args, context).await,
    }
}

async fn list(args: List, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(args.state.map(|s| ("state", s.as_str())));
    let found: Items<Run> = client.get("/runs", &query).await?;
    if args.server.json {
        return output::print_json(&found);
    }
    if found.items.is_empty() {
        return output::print("No runs.");
    }
    let mut table = Table::new(["ID", "STATE", "TARGET", "STARTED", "ALLOWED BY", "TITLE"]);
    for r in found.items {
        let started = format!("{} ago", output::ago(r.started_at));
        let id = short_id(&r.id).to_owned();
        table.row([id, r.state.to_string(), r.plan.target, started, r.allowed_by.to_string(), r.plan.title]);
    }
    output::print(&table.for_stdout())
}

async fn show(args: Show, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let run = find(&client, &args.run).await?;
    if args.server.json {
        return output::print_json(&run);
    }
    output::print(&story(&run))
}

async fn settle(args: Settle, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let run = find(&client, &args.run).await?;
    let answer: Value =
        client.post(&format!("/runs/{}/settle", run.id), &json!({ "answer": args.answer })).await?;
    if args.server.json {
        return output::print_json(&answer);
    }
    output::print(&format!("Run {}: {}.", short_id(&run.id), args.answer))
}

async fn cancel(args: Cancel, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let run = find(&client, &args.run).await?;
    let answer: Run =
        client.post(&format!("/runs/{}/cancel", run.id), &because(args.reason.as_deref())).await?;
    if args.server.json {
        return output::print_json(&answer);
    }
    let id = short_id(&run.id);
    output::print(&match answer.state {
        RunState::Cancelled => format!("Run {id} is cancelled."),
        _ => format!("Run {id} stops; `aiops run show {id}` says where."),
    })
}

/// By the end of its id, among the newest thousand.
async fn find(client: &Client, text: &str) -> Result<Run, Failure> {
    let text = id(text)?;
    let page: Items<Run> = client.get("/runs", &[("limit", "1000")]).await?;
    let mut fitting = page.items.into_iter().filter(|r| r.id.ends_with(text));
    match (fitting.next(), fitting.next()) {
        (Some(run), None) => Ok(run),
        (None, _) => Err(Failure::failed(format!("no run has the id {text}; `aiops run list` shows them"))),
        _ => Err(Failure::new(Exit::Usage, format!("{text} fits several runs; give more of the id"))),
    }
}

fn story(r: &Run) -> String {
    let mut out = format!(
        "{} {}  allowed by {}\n{}",
        short_id(&r.id),
        r.state.as_str().to_uppercase(),
        output::line(&r.allowed_by.to_string()),
        describe(&r.plan)
    );
    if !r.outcome.is_empty() {
        out.push_str(&format!("\n{}", output::line(&r.outcome)));
    }
    let mut lines = Vec::new();
    for s in &r.steps {
        let phase = s.phase.as_str();
        lines.push(format!(
            "{} {phase} {} (try {}): {}",
            output::clock_time(s.started_at),
            output::line(&s.step_id),
            s.attempt,
            s.state
        ));
        lines.extend(s.output.lines().map(|l| format!("    {}", output::line(l))));
    }
    output::section(&mut out, "Journal", &lines);
    if r.state == RunState::NeedsHuman {
        out.push_str(&format!(
            "\n\nIt waits for you: aiops run settle {} continue|retry|roll_back|abort",
            short_id(&r.id)
        ));
    }
    out
}
