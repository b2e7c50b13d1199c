//! What a process has used so far, by `/proc`.

use std::{collections::BTreeMap, fs, time::Duration};

/// The kernel counts a process's time in hundredths of a second for everybody who asks.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a process with all threads that it has and had; none if it is gone.
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name, in parentheses, and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

/// Processor time by the names of the threads that live.
pub fn cpu_by_thread(pid: u32) -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for path in threads.map(|thread| thread.path()) {
        let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
        let Ok(stat) = fs::read_to_string(path.join("schedstat")) else { continue };
        let nanos = stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        *times.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(nanos);
    }
    times
}

/// Megabytes resident: now, and at most since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Memory {
    pub now_mb: f64,
    pub peak_mb: f64,
}

pub fn memory(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mb = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kb: f64 = line.trim().split(' ').next()?.parse().ok()?;
        Some((kb / 102.4).round() / 10.0)
    };
    Some(Memory { now_mb: mb("VmRSS:")?, peak_mb: mb("VmHWM:")? })
}

/// Busy time of the whole machine, all cores together.
pub fn machine() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map_while(|n| n.parse().ok()).collect();
    // user nice system (idle iowait) irq softirq steal
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|i| ticks.get(*i)).sum();
    TICK * u32::try_from(busy).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_shows_in_every_clock() {
        let pid = std::process::id();
        let (process, machine_before) = (cpu(pid).expect("we live"), machine());
        let end = Instant::now() + Duration::from_secs(60);
        while cpu(pid) < Some(process + Duration::from_millis(100)) && Instant::now() < end {
            std::hint::black_box((0..10_000).sum::<u64>());
        }
        let least = Duration::from_millis(80);
        assert!(cpu(pid).expect("we live") >= process + least);
        assert!(machine() >= machine_before + least);
        // Of those that live: what other tests' threads did went with them.
        assert!(cpu_by_thread(pid).values().any(|time| *time > Duration::ZERO));
        let memory = memory(pid).expect("we live");
        assert!(memory.now_mb > 1.0 && memory.peak_mb >= memory.now_mb, "{memory:?}");
        assert_eq!(cpu(u32::MAX), None);
    }
}
