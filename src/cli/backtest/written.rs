//! Where a result goes: a file that appears under its name when it is whole, or standard output.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
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
    /// Fails before anything was computed where it could not be written, or is what is read.
    pub fn create(path: &Path, input: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let writing = || format!("writing {name}");
        if path == Path::new("-") {
            return Ok(Self {
                to: Box::new(BufWriter::new(io::stdout().lock())),
                name: "standard output".into(),
                rename: None,
            });
        }
        let there = fs::metadata(path).ok();
        if let (Some(there), Ok(read)) = (&there, fs::metadata(input)) {
            let is_same = (there.dev(), there.ino()) == (read.dev(), read.ino());
            anyhow::ensure!(!is_same || !there.is_file(), "writing {name}: it is the input");
        }
        if there.is_some_and(|there| !there.is_file()) {
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
    fn a_file_is_there_when_it_is_whole_and_is_never_the_input() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let names = || fs::read_dir(dir.path()).expect("readable").count();
        fs::write(at("in"), "x").expect("written");
        std::os::unix::fs::symlink(at("in"), at("same")).expect("linked");
        for output in ["in", "same"] {
            let refused = Output::create(&at(output), &at("in")).err().expect("refused").to_string();
            assert!(refused.ends_with(": it is the input"), "{refused}");
        }
        fs::write(at("out"), "before").expect("written");
        let output = Output::create(&at("out"), &at("in")).expect("writable");
        let failed = output.finish(|to| {
            to.write_all(b"half of it")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err_and(|e| e.to_string().contains("/out")));
        assert_eq!((fs::read_to_string(at("out")).ok().as_deref(), names()), (Some("before"), 3));
        Output::create(&at("out"), &at("in"))
            .expect("writable")
            .finish(|to| to.write_all(b"all"))
            .expect("written");
        assert_eq!((fs::read_to_string(at("out")).ok().as_deref(), names()), (Some("all"), 3));
        assert!(Output::create(dir.path(), &at("in")).is_err(), "a directory");
        assert!(Output::create(&at("none/out"), &at("in")).is_err(), "in none");
    }
}
