//! The serving process, where it runs on this machine: what it may use, and what it does.

use std::path::Path;

/// From `/proc`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    pub open_files: Option<u64>,
    pub most_files: Option<u64>,
    /// Of its control group.
    pub most_memory: Option<u64>,
}

impl Process {
    /// The one that holds this directory.
    pub fn of(data_dir: &Path) -> Option<Self> {
        let id: u32 = std::fs::read_to_string(data_dir.join("aiops.lock")).ok()?.trim().parse().ok()?;
        let proc = Path::new("/proc").join(id.to_string());
        let name = std::fs::read_to_string(proc.join("comm")).ok()?;
        if name.trim() != "aiops" {
            return None;
        }
        let limits = std::fs::read_to_string(proc.join("limits")).unwrap_or_default();
        let group = std::fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
        Some(Self {
            open_files: std::fs::read_dir(proc.join("fd")).ok().map(|files| files.count() as u64),
            most_files: most_files(&limits),
            most_memory: most_memory(&group),
        })
    }
}

/// The soft limit; none: unlimited.
fn most_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Of cgroup v2; none: no limit.
fn most_memory(group: &str) -> Option<u64> {
    let path = group.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let file = Path::new("/sys/fs/cgroup").join(path).join("memory.max");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_soft_limit_counts() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(super::most_files(text), Some(1024));
        assert_eq!(super::most_files("Max open files  unlimited  unlimited  files"), None);
    }
}
