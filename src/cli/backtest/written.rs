//! Where a result goes: a file that appears under its name when it is whole, or standard output.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A result that is not there yet. What is no file (a terminal, a pipe) is written as it is.
pub struct Output {
    to: Box<dyn Write>,
    name: String,
    rename: Option<(tempfile::TempPath, PathBuf)>,
}

impl Output {
    /// Fails before anything was computed where it could not be written. It may be what is read: that has been read when its name
    /// is taken.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let writing = || format!("writing {name}");
        if path == Path::new("-") {
            return Ok(Self {
                to: Box::new(BufWriter::new(io::stdout().lock())),
                name: "standard output".into(),
                rename: None,
            });
        }
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            let to = File::options().write(true).open(path).with_context(writing)?;
            return Ok(Self { to: Box::new(BufWriter::new(to)), name, rename: None });
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (file, temporary) = tempfile::Builder::new()
            .prefix(".aiops-backtest-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(dir)
            .with_context(writing)?
            .into_parts();
        Ok(Self { to: Box::new(BufWriter::new(file)), name, rename: Some((temporary, path.to_owned())) })
    }

    pub fn is_standard_output(path: &Path) -> bool {
        path == Path::new("-")
    }

    /// Writes all of it. A reader that has gone away (`| head`) is no failure.
    pub fn finish(mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
        let writing = || format!("writing {}", self.name);
        match write(&mut self.to).and_then(|()| self.to.flush()) {
            Err(e) if self.rename.is_none() && e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.with_context(writing)?,
        }
        if let Some((temporary, path)) = self.rename {
            temporary.persist(path).with_context(writing)?;
        }
        Ok(())
    }
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
