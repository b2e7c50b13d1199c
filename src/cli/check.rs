//! `aiops check`: says what is wrong with the settings, the files and the playbooks, and who cannot be reached.

mod elasticsearch;
mod files;
mod finding;
mod peers;
mod playbooks;
mod running;

use serde_json::{Value, json};

use super::{Context, Exit, Failure, client::ServerArgs, output};
use crate::config::Loaded;
use finding::Findings;
pub use finding::{Finding, Level};

const EXAMPLES: &str = "\
Examples:
  aiops check --config /etc/aiops/aiops.yaml && systemctl reload aiops
  aiops check --offline               settings, files and playbooks only
  aiops check --fix                   install index templates and a lifecycle for our records in Elasticsearch or OpenSearch
  aiops check --json | jq '.findings[] | select(.level == \"error\")'

Every line says where and, if something is wrong, what would be right. Exit status: 0 nothing is wrong (advice does not count),
1 something is, 78 the settings cannot be read at all.";

/// Check settings, files and playbooks, and reach every configured service
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Reach nobody: only what is on this machine's disk
    #[arg(long)]
    offline: bool,
    /// Install what our own indices need in Elasticsearch or OpenSearch, and try again what they refused
    #[arg(long, conflicts_with = "offline")]
    fix: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let loaded = context.settings()?;
    let settings = &loaded.settings;
    let mut findings = Findings::default();
    files::settings(&loaded, &mut findings);
    files::data(settings, &mut findings);
    playbooks::check(settings, &mut findings);
    if !args.offline {
        peers::check(settings, &mut findings).await;
        let ready = elasticsearch::check(settings, args.fix, &mut findings).await;
        if args.fix && ready {
            elasticsearch::retry(&args.server, context, &mut findings).await;
        }
        running::check(&args.server, context, &mut findings).await;
    }
    let bad = findings.count(Level::Error);
    if args.server.json {
        output::print_json(&json!({ "errors": bad, "findings": findings.all() }))?;
    } else {
        output::print(&findings.render())?;
    }
    match bad {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "")),
    }
}

/// What the disk says, and what a running service says of itself, without asking anybody.
pub fn of_a_running_service(loaded: &Loaded, status: Option<&Value>) -> Vec<Finding> {
    let mut findings = Findings::default();
    files::settings(loaded, &mut findings);
    files::data(&loaded.settings, &mut findings);
    if let Some(status) = status {
        running::report(status, &mut findings);
    }
    findings.into_all()
}
