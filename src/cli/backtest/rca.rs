//! `aiops backtest rca`: ranks the services of one recorded incident.

mod figure;
mod read;

use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::{Failure, output};
use crate::diagnose::rank::{self, Ranking};

const FORMAT: &str = "\
A case is a directory:
  case.json     {\"id\", \"alert\": {\"service\", \"metric\" or null, \"at\"}, \"window\": {\"from\", \"to\"}}
  metrics.csv   timestamp,service,metric,value
  logs.csv      timestamp,service,level,message
  spans.csv     trace_id,span_id,parent_id,service,operation,start,duration_us,status
  topology.csv  caller,callee
  changes.csv   timestamp,service,summary
spans.csv may have a ninth column, peer: whom a client's span waits for, where that sends no spans.
Metrics may be named as Prometheus shows them: name{label=\"value\"}; of _sum, _count, _bucket and _total the rates a second.
Of the tables those that are there are used. Times are RFC 3339; what is before window.from is what is usual.

Example:
  aiops backtest rca --case incidents/4f2a9c --output ranking.json
  jq -r '.verdict, .ranking[0].service, .ranking[0].evidence[].text' ranking.json";

/// Rank the services of a recorded incident by how likely each is its root cause
#[derive(Debug, clap::Args)]
#[command(after_help = FORMAT)]
pub struct Args {
    /// The directory of the case
    #[arg(long, value_name = "DIR")]
    case: PathBuf,
    /// Where the ranking goes, as JSON; without it, to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw the ranking, too: an SVG picture
    #[arg(long, value_name = "FILE")]
    figure: Option<PathBuf>,
}

/// Reasons that are told of one service: what comes after them weighs next to nothing.
const MAX_EVIDENCE: usize = 5;

pub fn run(args: &Args) -> Result<(), Failure> {
    let (id, case) = read::case(&args.case).map_err(Failure::failed)?;
    let ranking = rank::rank(&case);
    let told = told(&id, &ranking);
    args.figure.as_deref().map(|path| write(path, &figure::svg(&id, &ranking))).transpose()?;
    match &args.output {
        None => output::print_json(&told),
        Some(path) => write(path, &format!("{told}\n")),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))
}

fn told(id: &str, ranking: &Ranking) -> serde_json::Value {
    let ranked = ranking.ranked.iter().map(|r| {
        let evidence = r.evidence.iter().take(MAX_EVIDENCE);
        let evidence: Vec<_> = evidence
            .map(|e| json!({"kind": e.kind, "nats": round(e.nats), "text": e.text.to_string()}))
            .collect();
        json!({"service": r.service, "score": round(r.score), "evidence": evidence})
    });
    let ranked: Vec<_> = ranked.collect();
    json!({"case": id, "verdict": ranking.verdict, "among": ranking.among, "ranking": ranked})
}

/// More digits than three say nothing.
fn round(nats: f64) -> f64 {
    (nats * 1e3).round() / 1e3
}
