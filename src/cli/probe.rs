//! `aiops probe`: is the service there? For health checks where there is no shell and no curl.

use super::{Context, Failure, client, client::ServerArgs, output};

const EXAMPLES: &str = "\
Examples:
  aiops probe                  is it ready: the store answers, the pipeline works, deliveries do not age?
  aiops probe --live           does the process answer at all?

Exit status: 0 yes, 69 no.";

/// Ask the running service whether it is ready, for a container's health check
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only whether it lives; a service whose database is away does
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let path = if args.live { "/livez" } else { "/readyz" };
    let said = client::probe(&args.server, context, path).await?;
    if args.server.json {
        return output::print_json(&serde_json::json!({ "ok": true }));
    }
    output::print(said.trim_end())
}
