//! `aiops demo`: a real service breaks, and the real program notices, diagnoses, asks, repairs and verifies, in under a minute.

mod alerting;
mod ask;
mod customers;
mod phone;
mod screen;
mod settings;
mod stage;
mod story;
mod stream;
mod summary;
mod supervisor;
pub mod victim;
mod words;

use super::{Failure, output};
use crate::config::Language;

const EXAMPLES: &str = "\
Examples:
  aiops demo                                            asks you before it repairs anything
  aiops demo --yes --json                               unattended; one JSON object a line
  aiops demo --ollama http://127.0.0.1:11434 --model qwen3:8b
  OPENAI_API_KEY=… aiops demo --openai https://api.openai.com/v1 --model gpt-5-mini

Exit status: 0 only if the shop itself says that it is healthy again.";

/// Break a small real service and watch aiops repair it; needs nothing else, takes half a minute
///
/// Starts the service with an empty store and, as a child process, a small shop that ships its logs and metrics. The shop has a
/// bug, customers find it, and it stops answering. The alert comes in by the real webhook, the anomalies are found by the real
/// detectors, the playbook really restarts the shop, and the verification really asks it. Nothing outlives the command.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Approve the proposed playbook without asking
    #[arg(long, short)]
    yes: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The language of the story: en or ru
    #[arg(long, default_value_t = Language::English)]
    lang: Language,
    /// Let an Ollama server improve on the diagnosis
    #[arg(long, value_name = "URL", group = "llm")]
    ollama: Option<String>,
    /// Let an OpenAI-compatible server improve on the diagnosis (URL with /v1; the key is in OPENAI_API_KEY)
    #[arg(long, value_name = "URL", group = "llm")]
    openai: Option<String>,
    /// The model to ask for
    #[arg(long, requires = "llm")]
    model: Option<String>,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let log = crate::config::Log {
        filter: std::env::var("AIOPS_LOG_FILTER").unwrap_or_else(|_| "error".into()),
        ..Default::default()
    };
    let telemetry = crate::telemetry::init(&log, &Default::default())?;
    let mut stage = stage::Stage::build(&args).await?;
    let played = tokio::select! {
        played = story::play(&mut stage, &args) => played,
        _ = interrupted() => Err(Failure::failed("interrupted")),
    };
    stage.clear().await;
    telemetry.shutdown();
    match played? {
        true => Ok(()),
        false => Err(Failure::failed("")),
    }
}

/// Ctrl-C, or a polite request to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
    eprintln!("{}", output::line("ending the shop and the service …"));
}
