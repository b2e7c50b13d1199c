//! Where a result goes: a file that appears under its name when it is whole, or standard output.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A result that is not there yet.
pub struct Output {
    to: To,
    name: String,
}

enum To {
    /// What is no file (a terminal, a pipe) is written as it is.
    Stream(Box<dyn Write>),
    File(PathBuf),
}

impl Output {
    /// Fails before anything was computed where it could not be written. It may be what is read: that has been read when its name
    /// is taken.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let writing = || format!("writing {name}");
        let to = if path == Path::new("-") {
            return Ok(Self {
                to: To::Stream(Box::new(io::stdout().lock())),
                name: "standard output".into(),
            });
        } else if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            To::Stream(Box::new(File::options().write(true).open(path).with_context(writing)?))
        } else {
            temporary(path).with_context(writing)?;
            To::File(path.to_owned())
        };
        Ok(Self { to, name })
    }

    pub fn is_standard_output(path: &Path) -> bool {
        path == Path::new("-")
    }

    /// Writes all of it. A reader that has gone away (`| head`) is no failure.
    pub fn finish(self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
        let all = |to: &mut dyn Write| {
            let mut to = BufWriter::new(to);
            write(&mut to).and_then(|()| to.flush())
        };
        let written = match self.to {
            To::Stream(mut to) => match all(&mut to) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                written => written,
            },
            To::File(path) => temporary(&path).and_then(|mut file| {
                all(&mut file)?;
                file.persist(path)?;
                Ok(())
            }),
        };
        written.with_context(|| format!("writing {}", self.name))
    }
}

/// Beside what it will replace. It goes when it is dropped, but not when the process is killed: it should not be long.
fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = fs::Permissions::from_mode(0o644);
    tempfile::Builder::new().prefix(".aiops-backtest-").permissions(mode).tempfile_in(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path().join("out");
        let there = || (fs::read_to_string(&out).ok(), fs::read_dir(dir.path()).expect("readable").count());
        fs::write(&out, "before").expect("written");
        let output = Output::create(&out).expect("writable");
        let failed = output.finish(|to| {
            to.write_all(b"half of it")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err_and(|e| e.to_string().contains("/out")));
        assert_eq!(there(), (Some("before".into()), 1));
        Output::create(&out).expect("writable").finish(|to| to.write_all(b"all")).expect("written");
        assert_eq!(there(), (Some("all".into()), 1));
        assert!(Output::create(dir.path()).is_err(), "a directory");
        assert!(Output::create(&dir.path().join("none/out")).is_err(), "in none");
    }
}
