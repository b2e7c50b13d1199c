//! Sees that nothing outlives the test run, neither a process nor a directory.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::process::Pid;

use super::script;

/// A fresh directory, removed when the run ends. Other users may pass through it, for a server that does
/// not run as root.
pub fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    let dir = janitor().root.join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::DirBuilder::new().mode(0o711).create(&dir).expect("the name is new");
    dir
}

/// The process that cleans up after this one, whether it returns, panics, or is killed.
///
/// `PR_SET_PDEATHSIG` would not do: the kernel sends that signal when the *thread* that started the child
/// ends, which for a server that tests share is the end of the first test; and it reaches no grandchild.
pub struct Janitor {
    root: PathBuf,
    process: Mutex<Child>,
}

pub fn janitor() -> &'static Janitor {
    static JANITOR: OnceLock<Janitor> = OnceLock::new();
    JANITOR.get_or_init(|| {
        let root = tempfile::Builder::new()
            .prefix("aiops-it-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .expect("the system's directory for temporary files is writable")
            .keep();
        // In a group of its own, so that Ctrl-C in a terminal ends the tests and not the cleaning; and with
        // no output of ours, which would keep a pipe open that somebody reads to its end.
        let process = script("janitor.sh")
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("bash is installed");
        Janitor { root, process: Mutex::new(process) }
    })
}

impl Janitor {
    /// `start` or `end` of a process group.
    pub fn tell(&self, event: &str, group: Pid) {
        let mut process = self.process.lock().expect("nothing panics under it");
        let orders = process.stdin.as_mut().expect("it is piped");
        writeln!(orders, "{event} {group}").expect("the janitor lives as long as we do");
    }
}
