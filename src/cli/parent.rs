//! A child process that must not outlive the command that started it.

use rustix::process::Signal;

use super::Failure;

/// Asks the kernel to end us with our parent, or rather with the thread of it that started us; it may have gone before we could
/// ask. `who` names us and whoever starts us.
pub fn die_with(parent: i32, who: &str) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Failure::failed(format!("prctl: {e}")))?;
    match rustix::process::getppid() {
        Some(now) if now.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(Failure::failed(format!("{who}, which is gone"))),
    }
}
