//! One process for each data directory.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// Holds the directory until it is dropped, or the process ends in whatever way.
pub(crate) struct DirLock(#[allow(dead_code, reason = "held, not read")] File);

impl DirLock {
    /// Fails if another process has it.
    pub fn take(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("aiops.lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => bail!("{}", taken(data_dir, &mut file)),
            Err(e) => bail!(
                "{} cannot be locked ({e}); choose a data_dir on a file system that can lock files, such as a local disk",
                path.display()
            ),
        }
        let named = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        named.with_context(|| format!("writing {}", path.display()))?;
        Ok(Self(file))
    }
}

/// Who has it, as far as it has written that down by now, and what to do about it.
fn taken(data_dir: &Path, file: &mut File) -> String {
    let mut text = String::new();
    let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let who = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
    format!(
        "{} is in use by another aiops{who}; stop that one, or give this one a directory of its own (data_dir, \
         AIOPS_DATA_DIR)",
        data_dir.display()
    )
}

/// Makes the directory, readable by its owner only.
pub(crate) fn make_data_dir(data_dir: &Path) -> anyhow::Result<()> {
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
        let dir_name = dir.path().display();
        let who =
            format!("{dir_name} is in use by another aiops (process {}); stop that one", std::process::id());
        assert!(refusal.starts_with(&who), "{refusal}");
        assert!(!refusal.contains("os error"), "{refusal}");
        drop(first);
        DirLock::take(dir.path()).expect("free again");
    }
}
