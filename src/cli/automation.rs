//! `aiops automation`: the kill switch.

use clap::Subcommand;
use serde_json::Value;

use super::{
    Context, Failure,
    client::{Client, ServerArgs, because},
    output,
};

const EXAMPLES: &str = "\
Examples:
  aiops automation stop -r 'network maintenance'
  aiops automation start";

/// Stop all automation within a second, or let it go on
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// Start no further run or step; alerts, diagnoses and messages go on
    Stop(Args),
    /// Let approved playbooks run again
    Start(Args),
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A sentence for the others
    #[arg(long, short)]
    reason: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let (args, verb, said) = match command {
        Command::Stop(args) => {
            (args, "stop", "Automation is stopped: no run or step starts until `aiops automation start`.")
        }
        Command::Start(args) => (args, "start", "Automation is on."),
    };
    let client = Client::new(&args.server, context)?;
    let answer: Value = client.post(&format!("/automation/{verb}"), &because(args.reason.as_deref())).await?;
    if args.server.json {
        return output::print_json(&answer);
    }
    output::print(said)
}
