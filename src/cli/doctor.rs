//! `aiops doctor`: what is slow, full, stuck or mis-set, and what to do about it.
//!
//! `check` looks at settings and at who can be reached; this looks at the health of a service that runs, through its own API,
//! and, where that does not answer, at what it left on the disk.

mod alertmanager;
mod checks;
mod clocks;
mod disk;
mod metrics;
mod process;
mod symptom;

use serde_json::{Value, json};

use super::{
    Context, Exit, Failure, check,
    client::{Client, ServerArgs},
    output,
};
use crate::config::Loaded;
use disk::Disk;
use metrics::Metrics;
use process::Process;
use symptom::{Symptom, render};

const EXAMPLES: &str = "\
Examples:
  aiops doctor                              the service that these settings belong to
  aiops doctor --json | jq '.symptoms[] | select(.severity == \"critical\")'
  aiops doctor --server https://aiops.example.org --token-file ~/.aiops.token

Every symptom says how bad it is, where, what it is and what to do; docs/operations.md says more about each. The disk and the
process are looked at where this runs. Exit status: 0 nothing worse than advice, 1 something is wrong, 78 the settings cannot
be read at all.";

/// Say what is slow, full, stuck or mis-set, and what to do about it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
}

/// All that is looked at, gathered before anything is judged.
struct Scene {
    loaded: Loaded,
    /// What `/api/v1/status` and `/metrics` say, or why they say nothing.
    service: Result<Told, String>,
    disk: Disk,
    /// The serving process, if it runs on this machine.
    process: Option<Process>,
    /// How far the clocks of others are ahead, in seconds, by who they are.
    clocks: Vec<(String, i64)>,
    /// The configuration of each Alertmanager, as it gives it.
    alertmanagers: Vec<(String, Value)>,
}

/// What a running service says of itself.
struct Told {
    status: Value,
    metrics: Metrics,
}

impl Scene {
    fn status(&self) -> Option<&Value> {
        self.service.as_ref().ok().map(|told| &told.status)
    }
    fn metrics(&self) -> Option<&Metrics> {
        self.service.as_ref().ok().map(|told| &told.metrics)
    }
}

pub async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let scene = gather(&args.server, context).await?;
    let mut symptoms: Vec<Symptom> = checks::TABLE.iter().flat_map(|check| check(&scene)).collect();
    symptoms.sort_by_key(|s| std::cmp::Reverse(s.severity));
    let wrong = symptoms.iter().filter(|s| s.is_wrong()).count();
    if args.server.json {
        output::print_json(&json!({
            "wrong": wrong,
            "checks": checks::TABLE.len(),
            "running": scene.service.is_ok(),
            "symptoms": symptoms,
        }))?;
    } else {
        output::print(&render(&symptoms, checks::TABLE.len()))?;
    }
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "")),
    }
}

async fn gather(args: &ServerArgs, context: &Context) -> Result<Scene, Failure> {
    let loaded = context.settings()?;
    let settings = &loaded.settings;
    let service = ask(args, context).await.map_err(|failure| failure.message);
    let (mut clocks, alertmanagers) =
        tokio::join!(clocks::of_peers(settings), alertmanager::configurations(settings));
    clocks.extend(service.as_ref().ok().and_then(|(_, ahead)| Some(("aiops".to_owned(), (*ahead)?))));
    Ok(Scene {
        service: service.map(|(told, _)| told),
        disk: Disk::look(settings).await,
        process: Process::of(&settings.data_dir),
        clocks,
        alertmanagers,
        loaded,
    })
}

async fn ask(args: &ServerArgs, context: &Context) -> Result<(Told, Option<i64>), Failure> {
    let client = Client::new(args, context)?;
    let status = client.get("/status", &[]).await?;
    let (text, ahead) = client.metrics().await?;
    Ok((Told { status, metrics: Metrics::parse(&text) }, ahead))
}

/// What `check` finds on the disk and in a running service, for those who look for symptoms.
fn findings_of(scene: &Scene) -> Vec<check::Finding> {
    check::of_a_running_service(&scene.loaded, scene.status())
}
