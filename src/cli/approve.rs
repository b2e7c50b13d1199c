//! `aiops approve` and `aiops reject`: answer a question about one exact plan.

use serde_json::{Value, json};

use super::{
    Context, Exit, Failure,
    client::{Client, Items, ServerArgs, because, id},
    output,
    plan::describe,
};
use crate::model::{Approval, short_id};

const EXAMPLES: &str = "\
Examples:
  aiops approve                       show what waits for an answer
  aiops approve 4f2a9c                by the end of the approval's or of its incident's id
  aiops reject 4f2a9c -r 'the database is being moved'";

/// Let a proposed plan run; without an id, show what waits for an answer
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Approve {
    #[command(flatten)]
    answer: Answer,
}

/// Refuse a proposed plan
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Reject {
    #[command(flatten)]
    answer: Answer,
}

#[derive(Debug, clap::Args)]
struct Answer {
    /// The approval or its incident: the id, or its last characters (at least four)
    id: Option<String>,
    /// A sentence for the others; it is shown on the timeline
    #[arg(long, short)]
    reason: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn approve(args: Approve, context: &Context) -> Result<(), Failure> {
    answer(args.answer, "approve", "approved", context).await
}

pub async fn reject(args: Reject, context: &Context) -> Result<(), Failure> {
    answer(args.answer, "reject", "rejected", context).await
}

async fn answer(args: Answer, verb: &str, done: &str, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let pending = pending(&client).await?;
    let Some(text) = &args.id else { return show(&pending, args.server.json) };
    let approval = pick(&pending, id(text)?)?;
    let answer: Value = decide(&client, approval, verb, args.reason.as_deref()).await?;
    if args.server.json {
        return output::print_json(&answer);
    }
    output::print(&format!("{}\n{}.", describe(&approval.plan), capital(done)))
}

/// Those that wait for an answer.
pub(super) async fn pending(client: &Client) -> Result<Vec<Approval>, Failure> {
    let page: Items<Approval> = client.get("/approvals", &[("state", "pending"), ("limit", "1000")]).await?;
    Ok(page.items)
}

/// Sends the answer together with the hash of the plan that was shown: another plan is not meant.
pub(super) async fn decide(
    client: &Client,
    approval: &Approval,
    verb: &str,
    reason: Option<&str>,
) -> Result<Value, Failure> {
    let mut body = because(reason);
    body["plan_hash"] = approval.plan_hash.as_str().into();
    client.post(&format!("/approvals/{}/{verb}", approval.id), &body).await
}

fn pick<'a>(pending: &'a [Approval], text: &str) -> Result<&'a Approval, Failure> {
    let fits = |a: &&Approval| a.id.ends_with(text) || a.incident_id.ends_with(text);
    let found: Vec<&Approval> = pending.iter().filter(fits).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(Failure::failed(format!(
            "no question {text} waits for an answer: it was answered, it expired, or it never was; `aiops approve` shows those that wait"
        ))),
        _ => Err(Failure::new(Exit::Usage, format!("{text} fits several questions; give more of the id"))),
    }
}

fn show(pending: &[Approval], json: bool) -> Result<(), Failure> {
    if json {
        return output::print_json(&json!({ "items": pending, "next": null }));
    }
    if pending.is_empty() {
        return output::print("Nothing waits for an answer.");
    }
    let texts = pending.iter().map(|a| {
        format!(
            "{} (incident {}, until {})\n{}",
            short_id(&a.id),
            short_id(&a.incident_id),
            output::clock_time(a.expires_at),
            describe(&a.plan)
        )
    });
    output::print(&texts.collect::<Vec<_>>().join("\n\n"))
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
