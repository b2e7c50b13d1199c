//! What this process holds of the machine's memory, and giving back what it no longer needs.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// When the parts have started, for starting needs more than being idle.
const FIRST: Duration = Duration::from_secs(3);
const EVERY: Duration = Duration::from_secs(60);

/// Gives back to the system what the allocator keeps for later, now and then until stopped. The allocator does it by itself only
/// while it is asked for memory: after a storm, or the start, nobody asks.
pub(super) async fn give_back_until(stop: CancellationToken) {
    let mut pause = FIRST;
    while stop.run_until_cancelled(sleep(pause)).await.is_some() {
        // SAFETY: takes no pointer and is defined for every thread at every time; memory in use stays as it is.
        unsafe { libmimalloc_sys::mi_collect(true) };
        pause = EVERY;
    }
}

/// Resident bytes of this process, as the kernel counts them.
pub(super) fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_a_size() {
        let bytes = super::resident().expect("Linux tells");
        assert!((1 << 20..1 << 36).contains(&bytes), "{bytes}");
    }
}
