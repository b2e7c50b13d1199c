//! The files of a recording while they are written: they get their names together, when all of them are whole, so that what a
//! failure leaves behind is never taken for a recording.

use std::{
    fs::{self, File, TryLockError},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::json;

use super::recording::Kind;
use crate::search::Line;

/// A directory that a recording is written to.
pub struct Files {
    dir: PathBuf,
    parts: Vec<Part>,
}

struct Part {
    /// What it is called until then, and what it will be.
    path: PathBuf,
    name: PathBuf,
    /// Locked, for as long as it is ours.
    _file: File,
}

impl Files {
    /// Makes the directory if it is not there.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), parts: Vec::new() })
    }

    /// Another file of this kind; one that is there already is not overwritten.
    pub fn add(&mut self, kind: Kind) -> anyhow::Result<Lines> {
        let path = |n: usize| match n {
            1 => self.dir.join(format!("{kind}.jsonl")),
            n => self.dir.join(format!("{kind}-{n}.jsonl")),
        };
        let is_ours = |path: &PathBuf| self.parts.iter().any(|part| part.name == *path);
        let name = (1..).map(path).find(|path| !is_ours(path)).expect("numbers do not end");
        if name.exists() {
            bail!("{} is there already; name another directory, or remove it", name.display());
        }
        let path = name.with_extension("jsonl.part");
        let making = || format!("making {}", path.display());
        // What a kill left behind is taken over, what somebody writes is not.
        let options = File::options().create(true).write(true).truncate(false).to_owned();
        let file = options.open(&path).with_context(making)?;
        // Where files cannot be locked, nobody knows.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let path = path.display();
            bail!("{path} is being written: another recording goes into this directory; name another one");
        }
        file.set_len(0).with_context(making)?;
        let ours = file.try_clone().with_context(making)?;
        let written = Lines { file: BufWriter::new(file), name: name.display().to_string(), count: 0 };
        self.parts.push(Part { path, name, _file: ours });
        Ok(written)
    }

    /// Gives them their names; a file without anything in it is none.
    pub fn finish(mut self) -> anyhow::Result<()> {
        for Part { path, name, .. } in std::mem::take(&mut self.parts) {
            let naming = || format!("writing {}", name.display());
            match fs::metadata(&path).with_context(naming)?.len() {
                0 => fs::remove_file(&path).with_context(naming)?,
                _ => fs::rename(&path, &name).with_context(naming)?,
            }
        }
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for part in &self.parts {
            // It may not be there; and that it stays is no harm.
            let _ = fs::remove_file(&part.path);
        }
    }
}

/// One file of lines of JSON.
pub struct Lines {
    file: BufWriter<File>,
    name: String,
    count: u64,
}

impl Lines {
    /// A line that is no record.
    pub fn head(&mut self, row: &impl Serialize) -> anyhow::Result<()> {
        let writing = || format!("writing {}", self.name);
        serde_json::to_writer(&mut self.file, row).with_context(writing)?;
        self.file.write_all(b"\n").with_context(writing)
    }

    pub fn add(&mut self, row: &impl Serialize) -> anyhow::Result<()> {
        self.count += 1;
        self.head(row)
    }

    /// A log line, in the form in which the API takes it.
    pub fn log(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut row = json!({"time": line.at, "service": line.service, "message": line.message});
        let trace = line.trace_id.as_deref().unwrap_or_default();
        for (key, value) in [("host", line.host.as_str()), ("trace_id", trace)] {
            if !value.is_empty() {
                row[key] = value.into();
            }
        }
        if let Some(level) = line.level {
            row["level"] = level.as_str().into();
        }
        self.add(&row)
    }

    /// How many records it holds.
    pub fn end(mut self) -> anyhow::Result<u64> {
        self.file.flush().with_context(|| format!("writing {}", self.name))?;
        Ok(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("it is there");
        let name =
            |e: std::io::Result<fs::DirEntry>| e.expect("readable").file_name().into_string().expect("UTF-8");
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn names_come_with_the_end_and_what_failed_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("new/recording");
        let mut files = Files::new(&dir).expect("made");
        let mut first = files.add(Kind::Watches).expect("made");
        first.head(&json!({"name": "up"})).expect("written");
        assert_eq!(first.end().expect("flushed"), 0);
        let second = files.add(Kind::Watches).expect("made");
        assert_eq!(second.end().expect("flushed"), 0);
        assert_eq!(names(&dir), ["watches-2.jsonl.part", "watches.jsonl.part"]);
        files.finish().expect("named");
        assert_eq!(names(&dir), ["watches.jsonl"], "one that is empty is none");

        let mut files = Files::new(&dir).expect("it is there");
        files.add(Kind::Logs).expect("made");
        let refused = files.add(Kind::Watches).err().expect("it is there").to_string();
        assert!(refused.contains("recording/watches.jsonl is there already"), "{refused}");
        drop(files);
        assert_eq!(names(&dir), ["watches.jsonl"]);
    }

    #[test]
    fn two_recordings_into_one_directory_are_not_mixed() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("logs.jsonl.part"), "left behind by a kill").expect("written");
        let (mut one, mut two) =
            (Files::new(dir.path()).expect("there"), Files::new(dir.path()).expect("there"));
        let mut first = one.add(Kind::Logs).expect("what was left behind is no harm");
        first.head(&json!({"a": 1})).expect("written");
        first.end().expect("flushed");
        let refused = two.add(Kind::Logs).err().expect("it is being written").to_string();
        assert!(refused.contains("logs.jsonl.part is being written"), "{refused}");
        drop(two);
        one.finish().expect("named");
        assert_eq!(fs::read_to_string(dir.path().join("logs.jsonl")).expect("whole"), "{\"a\":1}\n");
    }
}
