//! The machine that figures are of, and how quiet it was.

use std::{fs, io::Write, path::Path, time::Instant};

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub cpu: String,
    pub kernel: String,
    /// Of the last minute, before the measurement.
    pub load_average: f64,
    /// Median time to make a page durable in the directory that the server writes to.
    pub fdatasync_ms: f64,
    pub date: String,
}

impl Machine {
    pub fn look(dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read("/proc/loadavg");
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: cpu.map_or("unknown", |(_, name)| name).to_owned(),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            load_average: load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0),
            fdatasync_ms: fdatasync(dir).unwrap_or(f64::NAN),
            date: crate::clock::now().strftime("%Y-%m-%d").to_string(),
        }
    }

    pub fn line(&self) -> String {
        format!(
            "{} cores of {}, {}; load average {} before; fdatasync {} ms; {}",
            self.cores, self.cpu, self.kernel, self.load_average, self.fdatasync_ms, self.date
        )
    }
}

fn fdatasync(dir: &Path) -> std::io::Result<f64> {
    let mut file = tempfile::tempfile_in(dir)?;
    let mut times = Vec::new();
    for _ in 0..21 {
        file.write_all(&[7; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok((times[times.len() / 2].as_secs_f64() * 1e5).round() / 100.0)
}
