//! `aiops migrate`: brings the schema of the store up to date, for `store.migrate: explicit`.

use serde_json::json;

use super::{Context, Exit, Failure, output};
use crate::{http_client, store};

const EXAMPLES: &str = "\
Examples:
  aiops migrate --check               is anything pending?
  aiops migrate                       apply it, then start the new version

Replicas of the version before may go on while this runs, and after it. Exit status: 0 up to date, 1 pending (--check) or
failed, 78 wrong settings.";

/// Show and apply pending migrations of the store
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only say what is pending; exit status 1 if anything is
    #[arg(long)]
    check: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?.settings;
    http_client::install_tls();
    let url = settings.store.url.expose();
    let standing = store::standing(url, &settings.data_dir).await?;
    standing.check(store::MigrateWhen::AtStart)?;
    if !args.check && !standing.pending.is_empty() {
        store::Store::open(url, &settings.data_dir).await?.close().await;
    }
    let names: Vec<String> = standing.pending.iter().map(|(v, name)| format!("{v:04} {name}")).collect();
    if args.json {
        let applied = if args.check { json!([]) } else { json!(names) };
        let pending = if args.check { json!(names) } else { json!([]) };
        output::print_json(&json!({ "pending": pending, "applied": applied }))?;
    } else if names.is_empty() {
        output::print("The schema is up to date.")?;
    } else {
        let head = if args.check { "Pending:" } else { "Applied:" };
        output::print(&format!("{head}\n  {}", names.join("\n  ")))?;
    }
    if args.check && !names.is_empty() { Err(Failure::new(Exit::Failed, "")) } else { Ok(()) }
}
