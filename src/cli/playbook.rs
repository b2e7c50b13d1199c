//! `aiops playbook`: list what the server has loaded, lint files, try and start one by hand.

use std::path::PathBuf;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Context, Failure,
    client::{Client, Items, ServerArgs, path_word},
    output, plan,
    table::Table,
};
use crate::{
    model::{Plan, short_id},
    playbook::{Catalog, Finding, Level},
};

const EXAMPLES: &str = "\
Examples:
  aiops playbook lint                                       the directory that the settings name
  aiops playbook lint playbooks/restart-by-http.yaml
  aiops playbook run restart-service -p service=checkout --dry-run
  aiops playbook run restart-service -p service=checkout";

/// List, lint and start playbooks
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    List(List),
    Lint(Lint),
    Run(Run),
}

/// List the playbooks that the server has loaded
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    server: ServerArgs,
}

/// Check playbook files; needs no server
#[derive(Debug, clap::Args)]
pub struct Lint {
    /// Files or directories; by default the directory that the settings name
    paths: Vec<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Start a playbook by hand; you are named as the one who allowed it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// The playbook's id
    id: String,
    /// A parameter, as name=value; may be given several times
    #[arg(long = "param", short, value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// The incident that it belongs to
    #[arg(long)]
    incident: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(args, context).await,
        Command::Lint(args) => lint(args, context),
        Command::Run(args) => start(args, context).await,
    }
}

#[derive(Deserialize, Serialize)]
struct Listed {
    id: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    approval: String,
    #[serde(default)]
    not_allowed: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

async fn list(args: List, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let found: Items<Listed> = client.get("/playbooks", &[]).await?;
    if args.server.json {
        return output::print_json(&found);
    }
    if found.items.is_empty() {
        return output::print("The server has no playbooks: see playbooks.dir in its settings.");
    }
    let mut table = Table::new(["ID", "APPROVAL", "ALLOWED", "TITLE"]);
    for p in found.items {
        let allowed = p.not_allowed.map_or("yes".into(), |why| format!("no: {why}"));
        table.row([p.id, p.approval, allowed, p.title]);
    }
    output::print(&table.for_stdout())
}

fn lint(args: Lint, context: &Context) -> Result<(), Failure> {
    let mut settings = context.settings()?.settings;
    let mut paths = args.paths;
    if paths.is_empty() {
        paths.push(settings.playbooks.dir.clone());
    }
    let (mut findings, mut loaded): (Vec<Finding>, usize) = Default::default();
    for path in paths {
        let catalog = if path.is_dir() {
            settings.playbooks.dir = path;
            Catalog::read(&settings)
        } else {
            one_file(&path, &settings)?
        };
        loaded += catalog.playbooks.len();
        findings.extend(catalog.findings);
    }
    let bad = findings.iter().any(|f| f.level == Level::Error);
    if args.json {
        output::print_json(&json!({ "playbooks": loaded, "findings": findings }))?;
    } else {
        let mut lines: Vec<String> = findings.iter().map(|f| output::line(&f.to_string())).collect();
        lines.push(format!("{loaded} playbooks can be loaded, {} findings.", findings.len()));
        output::print(&lines.join("\n"))?;
    }
    if bad { Err(Failure::failed("")) } else { Ok(()) }
}

fn one_file(path: &std::path::Path, settings: &crate::config::Settings) -> Result<Catalog, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::failed(format!("{}: cannot be read: {e}", path.display())))?;
    let mut catalog = Catalog {
        playbooks: Default::default(),
        findings: Vec::new(),
        policy: settings.playbooks.clone(),
        language: settings.language,
    };
    catalog.add(&path.display().to_string(), &text);
    Ok(catalog)
}

async fn start(args: Run, context: &Context) -> Result<(), Failure> {
    let client = Client::new(&args.server, context)?;
    let verb = if args.dry_run { "dry-run" } else { "run" };
    let params: Map<String, Value> = args.params.into_iter().map(|(k, v)| (k, v.into())).collect();
    let body = json!({ "params": params, "incident_id": args.incident });
    let answer: Value = client.post(&format!("/playbooks/{}/{verb}", path_word(&args.id)?), &body).await?;
    if args.server.json {
        return output::print_json(&answer);
    }
    let shown: Shown = serde_json::from_value(answer).map_err(anyhow::Error::from)?;
    output::print(&shown.render())
}

/// A dry run, or the run that was started.
#[derive(Deserialize)]
struct Shown {
    /// Of the run, if there is one.
    id: Option<String>,
    plan: Plan,
    #[serde(default)]
    guards: Vec<Guard>,
    #[serde(default)]
    probes: Vec<Probed>,
}

#[derive(Deserialize)]
struct Guard {
    holds: bool,
    text: String,
}

#[derive(Deserialize)]
struct Probed {
    does: String,
    now: Option<String>,
}

impl Shown {
    fn render(&self) -> String {
        let mut lines = vec![plan::describe(&self.plan)];
        for guard in &self.guards {
            let word = if guard.holds { "allows it" } else { "forbids it" };
            lines.push(format!("  guard {word}: {}", output::line(&guard.text)));
        }
        for probe in &self.probes {
            let now = probe.now.as_deref().unwrap_or("not asked");
            lines.push(format!("  now: {}: {}", output::line(&probe.does), output::line(now)));
        }
        lines.push(match &self.id {
            Some(id) => {
                format!("Run {0} is started; `aiops run show {0}` follows it.", short_id(id))
            }
            None => "Nothing was done: this was a dry run.".to_owned(),
        });
        lines.join("\n")
    }
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as name=value".to_owned()),
    }
}
