//! `aiops serve`: the service itself, until it is told to stop.

mod notify;
mod reload;

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Context, Failure, output};
use crate::{app::App, config::Settings, telemetry::Telemetry};

const EXAMPLES: &str = "\
Examples:
  aiops serve                                    the defaults: 127.0.0.1:8080, state in ./data
  aiops serve --config /etc/aiops/aiops.yaml
  AIOPS_LISTEN=127.0.0.1:0 aiops serve           any free port; the first line says which

Signals: SIGHUP reads the settings and playbooks anew and says what needs a restart; SIGTERM and SIGINT finish what is under
way and end. A service manager that set NOTIFY_SOCKET and WATCHDOG_USEC, such as systemd, is told when it is ready, and that it lives.";

/// Start the service
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub async fn run(_args: Args, context: &Context) -> Result<(), Failure> {
    let mut settings = context.settings()?.settings;
    allow_all_files();
    // Caught from here on: a signal during the start ends it in order, too.
    let mut signals = Signals::new()?;
    let telemetry = crate::telemetry::init(&settings.log, &settings.otlp)?;
    let app = App::start(settings.clone()).await?;
    let manager = notify::Manager::from_env();
    output::print(&greeting(&app, &settings))?;
    manager.tell("READY=1");
    loop {
        match signals.next(manager.every).await {
            Heard::Stop(name) => {
                tracing::info!(signal = name, "stopping");
                break;
            }
            Heard::Reload => settings = reload::reload(&app, &telemetry, context, settings).await,
            Heard::Nothing => manager.tell("WATCHDOG=1"),
        }
    }
    manager.tell("STOPPING=1");
    app.shutdown().await;
    end(telemetry).await;
    Ok(())
}

/// Every connection is an open file, and the usual soft limit of 1024 is there for programs that call `select`.
fn allow_all_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(e) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(error = %e, "the limit of open files stays at {:?}", limit.current);
        }
    }
}

/// The one line that a script can wait for.
fn greeting(app: &App, settings: &Settings) -> String {
    let token = settings.data_dir.join("admin.token");
    let with =
        if token.exists() { format!("; the admin token is in {}", token.display()) } else { String::new() };
    format!("aiops listens on http://{}{with}", app.addr())
}

/// The flush waits for the runtime, so it must not hold one of its threads.
async fn end(telemetry: Telemetry) {
    let _ = tokio::task::spawn_blocking(move || telemetry.shutdown()).await;
}

enum Heard {
    Stop(&'static str),
    Reload,
    /// For as long as one may be silent.
    Nothing,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self, silent: Option<Duration>) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Heard::Stop("SIGINT"),
            _ = self.hangup.recv() => Heard::Reload,
            () = tokio::time::sleep(silent.unwrap_or_default()), if silent.is_some() => Heard::Nothing,
        }
    }
}
