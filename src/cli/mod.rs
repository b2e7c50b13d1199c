//! The command line: one file per command. Commands about incidents talk to a running server by its API; `serve` is that server.

mod approve;
mod automation;
mod backtest;
mod backup;
mod bench;
mod check;
mod client;
mod completions;
mod demo;
mod doctor;
mod exit;
mod explain;
mod incident;
mod logs;
mod migrate;
mod output;
mod parent;
mod plan;
mod playbook;
mod probe;
mod restore;
mod run;
mod serve;
mod silence;
mod table;
mod token;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use exit::{Exit, Failure};

use crate::config::{self, Loaded};

const EXAMPLES: &str = "\
First steps:
  aiops demo                          watch an incident from the first error to the verified fix, nothing else needed
  aiops serve                         start the service on 127.0.0.1:8080, state in ./data
  aiops check --config aiops.yaml     say what is wrong with the settings, and who cannot be reached

At 3 a.m.:
  aiops incident list                 what is broken now
  aiops incident show 4f2a9c          one incident with its diagnosis and timeline
  aiops logs checkout --level error   its last error lines
  aiops approve 4f2a9c                let the proposed playbook run
  aiops silence add service=db --for 2h --reason work   say nothing of it for a while
  aiops automation stop               nothing runs by itself any more, within a second

Exit status: 0 done, 1 failed, 2 wrong usage, 69 server unavailable, 77 not allowed, 78 wrong settings.";

/// Turns alerts into incidents, says what is wrong and why, and repairs it when allowed to.
///
/// Alerts, logs and metrics come in; one incident comes out, with a diagnosis that cites its evidence and a typed playbook that
/// waits for your approval. After the run it asks the service itself whether that helped.
#[derive(Debug, Parser)]
#[command(name = "aiops", version, after_help = EXAMPLES, after_long_help = EXAMPLES, propagate_version = true)]
struct Cli {
    /// The settings file; without one the defaults apply, and environment variables either way
    #[arg(long, global = true, env = "AIOPS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Check(check::Args),
    Migrate(migrate::Args),
    Doctor(doctor::Args),
    #[command(subcommand)]
    Incident(incident::Command),
    Approve(approve::Approve),
    Reject(approve::Reject),
    Explain(explain::Args),
    Logs(logs::Args),
    #[command(subcommand)]
    Playbook(playbook::Command),
    #[command(subcommand)]
    Run(run::Command),
    #[command(subcommand)]
    Silence(silence::Command),
    #[command(subcommand)]
    Automation(automation::Command),
    #[command(subcommand)]
    Token(token::Command),
    Probe(probe::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    #[command(subcommand)]
    Backtest(backtest::Command),
    #[command(subcommand)]
    Bench(bench::Command),
    Completions(completions::Args),
    /// The server that `bench` measures
    #[command(hide = true)]
    BenchServer(bench::server::Args),
    /// The service that `demo` breaks
    #[command(hide = true)]
    DemoVictim(demo::victim::Args),
}

/// What every command may need: where the settings come from.
#[derive(Clone, Debug)]
struct Context {
    config: Option<PathBuf>,
}

impl Context {
    /// The settings of file and environment; exit status 78 if they are wrong.
    fn settings(&self) -> Result<Loaded, Failure> {
        Ok(config::load(self.config.as_deref(), std::env::vars())?)
    }
}

/// Runs the command that the process was started with.
pub fn main() -> std::process::ExitCode {
    let Cli { config, command } = Cli::parse();
    match run(command, &Context { config }) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("aiops: {}", output::plain(&failure.message));
            }
            failure.exit.into()
        }
    }
}

fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(anyhow::Error::from)?;
    let done = runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::run(args, context).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Check(args) => check::run(args, context).await,
            Command::Migrate(args) => migrate::run(args, context).await,
            Command::Doctor(args) => doctor::run(args, context).await,
            Command::Incident(command) => incident::run(command, context).await,
            Command::Approve(args) => approve::approve(args, context).await,
            Command::Reject(args) => approve::reject(args, context).await,
            Command::Explain(args) => explain::run(args, context).await,
            Command::Logs(args) => logs::run(args, context).await,
            Command::Playbook(command) => playbook::run(command, context).await,
            Command::Run(command) => run::run(command, context).await,
            Command::Silence(command) => silence::run(command, context).await,
            Command::Automation(command) => automation::run(command, context).await,
            Command::Token(command) => token::run(command, context).await,
            Command::Probe(args) => probe::run(args, context).await,
            Command::Backup(args) => backup::run(args, context).await,
            Command::Restore(args) => restore::run(args, context).await,
            Command::Backtest(command) => backtest::run(&command, context).await,
            Command::Bench(command) => bench::run(command).await,
            Command::BenchServer(args) => bench::server::run(args, context).await,
            Command::Completions(args) => completions::run(args),
            Command::DemoVictim(args) => demo::victim::run(args).await,
        }
    });
    // A thread that still reads the terminal must not keep the process.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_help() {
        let mut command = super::Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut unhelped = Vec::new();
        let mut open = vec![&command];
        while let Some(c) = open.pop() {
            open.extend(c.get_subcommands());
            if c.get_about().is_none() {
                unhelped.push(c.get_name().to_owned());
            }
        }
        assert_eq!(unhelped, Vec::<String>::new());
    }
}
