//! `aiops token`: who may talk to the API.

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Context, Failure,
    client::{Client, Items, ServerArgs, path_word},
    output,
    table::Table,
};
use crate::{model::Role, store::tokens::Token};

const EXAMPLES: &str = "\
Examples:
  aiops token create alertmanager --role intake > /etc/alertmanager/aiops.token
  aiops token create ann --role operator
  aiops token revoke ann";

/// Make, list and revoke API tokens
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a token and print it; it is shown only this once
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Who or what it is for; it stands in the audit trail
    name: String,
    /// intake (only sends alerts and telemetry), viewer, operator (acknowledges, approves) or admin
    #[arg(long)]
    role: Role,
    #[command(flatten)]
    server: ServerArgs,
}

/// List tokens, without their secrets
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    server: ServerArgs,
}

/// Make a token worthless
#[derive(Debug, clap::Args)]
pub struct Revoke {
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create(args, context).await,
        Command::List(args) => list(args, context).await,
        Command::Revoke(args) => revoke(args, context).await,
    }
}

async fn create(args: Create, context: &Context) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Created {
        token: String,
    }
    let client = Client::new(&args.server, context)?;
    let answer: Value = client.post("/tokens", &json!({ "name": args.name, "role": args.role })).await?;
    if args.server.json {
        return output::print_json(&answer);
    }
    let created: Created = serde_json::from_value(answer).map_err(anyhow::Error::from)?;
    eprintln!("Token {} with the role {}; it is not shown again:", output::line(&args.name), args.role);
    output::print(&created.token)
}

async fn list(args: List, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let found: Items<Token> = client.get("/tokens", &[]).await?;
    if args.server.json {
        return output::print_json(&found);
    }
    let mut table = Table::new(["NAME", "ROLE", "CREATED", "REVOKED"]);
    for t in found.items {
        let revoked = t.revoked_at.map(output::date_time).unwrap_or_default();
        table.row([t.name, t.role.to_string(), output::date_time(t.created_at), revoked]);
    }
    output::print(&table.for_stdout())
}

async fn revoke(args: Revoke, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let name = path_word(&args.name)?;
    client.delete(&format!("/tokens/{name}")).await?;
    output::print(&format!("Token {} is revoked.", output::line(&args.name)))
}
