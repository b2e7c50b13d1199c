//! Runs one allowed executable: arguments as a list, a clean environment, a private directory, a process group of its own that
//! ends as a whole.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{Context, Ended, Outcome, Tools};

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How long after the end of the process its last output may take to arrive; a daemon that it left behind may hold the pipe.
const DRAIN: Duration = Duration::from_millis(300);
/// What is held of the output while it runs.
const KEEP: usize = 32 << 10;

pub(super) async fn run(
    tools: &Tools,
    argv: &[String],
    context: &Context,
    stop: &CancellationToken,
) -> Outcome {
    let mut child = match spawn(tools, argv, context) {
        Ok(child) => child,
        Err(why) => return Outcome::failed(&why),
    };
    let group = Group::of(&child);
    let mut output = Output::of(&mut child);
    let ended = tokio::select! {
        status = output.until_exit(&mut child) => Seen::Exited(status),
        () = tokio::time::sleep(context.timeout) => Seen::TimedOut,
        () = stop.cancelled() => Seen::Stopped,
    };
    match ended {
        Seen::Exited(Ok(status)) => {
            group.leave();
            output.drain().await;
            judge(status, &output.text())
        }
        Seen::Exited(Err(e)) => Outcome::new(Ended::Unknown, &format!("lost sight of it: {e}")),
        cause => {
            group.end(&mut child, &mut output).await;
            let text = output.text();
            match cause {
                Seen::TimedOut => {
                    let after = humantime::format_duration(context.timeout);
                    Outcome::failed(&format!("{text}\ntimed out after {after} and was terminated"))
                }
                _ => Outcome::new(Ended::Unknown, &format!("{text}\nwas stopped before its end")),
            }
        }
    }
}

/// Why we stopped looking at it.
enum Seen {
    Exited(std::io::Result<ExitStatus>),
    TimedOut,
    Stopped,
}

fn judge(status: ExitStatus, text: &str) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::succeeded(text),
        (Some(code), _) => Outcome::failed(&format!("{text}\nexit status {code}")),
        (None, signal) => Outcome::failed(&format!("{text}\nended by signal {}", signal.unwrap_or_default())),
    }
}

fn spawn(tools: &Tools, argv: &[String], context: &Context) -> Result<Child, String> {
    let (program, arguments) = argv.split_first().ok_or("there is no executable")?;
    // Asked again: the settings may have changed since the plan was made.
    if tools.registry.current().policy.executable(program).is_none_or(|allowed| allowed != Path::new(program))
    {
        return Err(format!("{program} is not in playbooks.executables (any more)"));
    }
    let directory = private_directory(&tools.data_dir, &context.run_id)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .env("HOME", &directory)
        .env("AIOPS_RUN_ID", &context.run_id)
        .env("AIOPS_INCIDENT_ID", context.incident_id.as_deref().unwrap_or_default())
        .current_dir(&directory)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    die_with_parent(&mut command);
    command.spawn().map_err(|e| format!("{program} could not be started: {e}"))
}

/// A command must not outlive a killed orchestrator: the next one would think about its outcome while it is still at work.
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let between = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
    };
    // SAFETY: between fork and exec the closure makes only the system calls prctl and getppid, which are async-signal-safe; it
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(between) };
}

/// `<data dir>/runs/<run id>`, for its owner alone.
fn private_directory(data_dir: &Path, run_id: &str) -> Result<PathBuf, String> {
    let path = std::path::absolute(data_dir.join("runs").join(run_id)).map_err(|e| e.to_string())?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(|e| format!("{} could not be made: {e}", path.display()))?;
    Ok(path)
}

pub(super) fn clean(data_dir: &Path, run_id: &str) {
    let path = data_dir.join("runs").join(run_id);
    match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), error = %e, "a run's directory could not be removed");
        }
        _ => {}
    }
}

/// A process group that is ended when it is dropped, unless its leader has ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(pid, signal);
        }
    }
    /// It ended by itself; what it started on purpose (a daemon) lives on.
    fn leave(mut self) {
        self.0 = None;
    }
    /// SIGTERM to all of it, then SIGKILL to whoever is left.
    async fn end(self, child: &mut Child, output: &mut Output) {
        self.signal(Signal::TERM);
        let _ = tokio::time::timeout(GRACE, output.until_exit(child)).await;
        self.signal(Signal::KILL);
        if let Err(e) = child.wait().await {
            tracing::warn!(error = %e, "waiting for a terminated command failed");
        }
        output.drain().await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The end of what a process prints to both of its outputs, as it comes.
struct Output {
    from: mpsc::Receiver<Vec<u8>>,
    kept: Vec<u8>,
}

impl Output {
    fn of(child: &mut Child) -> Self {
        let (to, from) = mpsc::channel(16);
        if let Some(out) = child.stdout.take() {
            tokio::spawn(copy(out, to.clone()));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(copy(err, to));
        }
        Self { from, kept: Vec::new() }
    }
    fn keep(&mut self, chunk: &[u8]) {
        self.kept.extend_from_slice(chunk);
        if self.kept.len() > 2 * KEEP {
            self.kept.drain(..self.kept.len() - KEEP);
        }
    }
    async fn until_exit(&mut self, child: &mut Child) -> std::io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                Some(chunk) = self.from.recv() => self.keep(&chunk),
            }
        }
    }
    async fn drain(&mut self) {
        let end = tokio::time::Instant::now() + DRAIN;
        while let Ok(Some(chunk)) = tokio::time::timeout_at(end, self.from.recv()).await {
            self.keep(&chunk);
        }
    }
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim_end().to_owned()
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(n) = from.read(&mut buffer).await {
        // Nobody listens any more: the step is over.
        if n == 0 || to.send(buffer[..n].to_vec()).await.is_err() {
            return;
        }
    }
}
