//! The data directory as it is on this machine: room, files, whether they hold together, how long the disk takes.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::statvfs;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use crate::{config::Settings, store::damage};

/// What was found; what could not be looked at is none.
#[derive(Debug, Default)]
pub struct Disk {
    pub free_bytes: Option<u64>,
    pub free_share: Option<f64>,
    pub wal_bytes: Option<u64>,
    /// The median of a few writes of one page, each made durable.
    pub sync: Option<Duration>,
    /// Which database file is damaged, and how.
    pub damaged: Vec<(String, String)>,
}

const WRITES: usize = 5;

impl Disk {
    pub async fn look(settings: &Settings) -> Self {
        let dir = &settings.data_dir;
        if !dir.is_dir() {
            return Self::default();
        }
        let room = statvfs(dir).ok();
        let room = room.as_ref();
        let mut damaged = Vec::new();
        let mut wal_bytes = None;
        for name in ["aiops.db", "inbox.db"] {
            let file = dir.join(name);
            if let Some(why) = damage_of(&file).await {
                damaged.push((file.display().to_string(), why));
            }
            if let Ok(meta) = std::fs::metadata(dir.join(format!("{name}-wal"))) {
                wal_bytes = Some(wal_bytes.unwrap_or(0).max(meta.len()));
            }
        }
        Self {
            free_bytes: room.map(|room| room.f_bavail * room.f_frsize),
            free_share: room.map(|room| room.f_bavail as f64 / room.f_blocks.max(1) as f64),
            wal_bytes,
            sync: sync_time(dir).ok(),
            damaged,
        }
    }
}

/// Reads the whole file without changing it.
async fn damage_of(file: &Path) -> Option<String> {
    if !file.is_file() {
        return None;
    }
    let options = SqliteConnectOptions::new().filename(file).read_only(true).disable_statement_logging();
    let mut connection = match options.connect().await {
        Ok(connection) => connection,
        Err(e) => return damage::is_damage(&e).then(|| e.to_string()),
    };
    let found = damage::look(&mut connection).await;
    let _ = connection.close().await;
    found.ok().flatten()
}

fn sync_time(dir: &Path) -> std::io::Result<Duration> {
    let mut file = tempfile::Builder::new().prefix("doctor-").tempfile_in(dir)?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let started = Instant::now();
        file.write_all(&[0; 4096])?;
        File::sync_data(file.as_file())?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times[WRITES / 2])
}
