//! One process for each data directory.

use std::{fs::File, path::Path};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};

/// Holds the directory until it is dropped, or the process ends in whatever way.
pub(super) struct DirLock(#[allow(dead_code, reason = "held, not read")] File);

impl DirLock {
    /// Fails if another process has it.
    pub fn take(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("aiops.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            anyhow::anyhow!(
                "{} is in use by another aiops ({e}); stop it, or choose another data_dir",
                data_dir.display()
            )
        })?;
        Ok(Self(file))
    }
}

/// Makes the directory, readable by its owner only.
pub(super) fn make_data_dir(data_dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if !data_dir.exists() {
        return std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .with_context(|| format!("making the data directory {}", data_dir.display()));
    }
    let mode = std::fs::metadata(data_dir)
        .with_context(|| format!("reading {}", data_dir.display()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            "{} is open to others (mode {:o}); `chmod 700` it, it holds alerts, plans and the admin token",
            data_dir.display(),
            mode & 0o777
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = DirLock::take(dir.path()).expect("free");
        let refusal = DirLock::take(dir.path()).err().expect("taken").to_string();
        assert!(refusal.contains("in use by another aiops"), "{refusal}");
        drop(first);
        DirLock::take(dir.path()).expect("free again");
    }
}
