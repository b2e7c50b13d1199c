//! The archive of a backup: `manifest.json`, then the files that it lists, in one `.tar.gz`.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use anyhow::{Context, bail, ensure};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::backup::Contents;

const MANIFEST: &str = "manifest.json";
const MOST_MANIFEST: u64 = 64 * 1024;
/// Of the archive; a reader refuses others.
const FORMAT: u32 = 1;

/// What an archive says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The version of the program that made it.
    pub aiops: String,
    pub made_at: Timestamp,
    /// `sqlite` or `postgresql`.
    pub engine: String,
    pub contents: Contents,
    pub files: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub name: String,
    pub bytes: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// Of these files of `dir`.
    pub fn of(dir: &Path, names: &[&str], engine: &str, contents: Contents) -> anyhow::Result<Self> {
        let member = |name: &&str| {
            let path = dir.join(name);
            let file = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
            let (bytes, sha256) = copy_hashing(file, io::sink())?;
            Ok(Member { name: (*name).to_owned(), bytes, sha256 })
        };
        Ok(Self {
            format: FORMAT,
            aiops: env!("CARGO_PKG_VERSION").into(),
            made_at: crate::clock::now(),
            engine: engine.into(),
            contents,
            files: names.iter().map(member).collect::<anyhow::Result<_>>()?,
        })
    }
}

/// Packs the manifest and its files, which lie in `dir`, into `out`.
pub fn pack(manifest: &Manifest, dir: &Path, out: &mut File) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(out, Compression::fast()));
    let text = serde_json::to_vec_pretty(manifest)?;
    tar.append_data(&mut header(text.len() as u64, manifest), MANIFEST, text.as_slice())?;
    for member in &manifest.files {
        let file = File::open(dir.join(&member.name))?;
        tar.append_data(&mut header(member.bytes, manifest), &member.name, file)?;
    }
    tar.into_inner()?.finish()?;
    Ok(())
}

fn header(size: u64, manifest: &Manifest) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(manifest.made_at.as_second().max(0).cast_unsigned());
    header
}

/// Reads a whole archive and compares each file with the manifest; `place` says where a file is to be written.
pub fn unpack<W: Write>(path: &Path, place: impl Fn(&str) -> io::Result<W>) -> anyhow::Result<Manifest> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    read(file, place).with_context(|| format!("{} is no whole backup", path.display()))
}

fn read<W: Write>(file: File, place: impl Fn(&str) -> io::Result<W>) -> anyhow::Result<Manifest> {
    let mut tar = tar::Archive::new(GzDecoder::new(io::BufReader::new(file)));
    let mut entries = tar.entries()?;
    let first = entries.next().context("it is empty")?.context("it does not begin as an archive does")?;
    let manifest = manifest(first)?;
    let mut left = manifest.files.iter();
    for entry in entries {
        let entry = entry.context("it breaks off or is damaged")?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let member = left.next().filter(|m| m.name == name);
        let member = member.with_context(|| format!("its manifest does not list {name:?} here"))?;
        // One byte more than there should be is enough to tell.
        let written = copy_hashing(entry.take(member.bytes + 1), place(&name)?);
        let (bytes, sha256) = written.with_context(|| format!("{name} breaks off or is damaged"))?;
        ensure!(
            bytes == member.bytes && sha256 == member.sha256,
            "{name} is not what the manifest says: SHA-256 {sha256} of {bytes} bytes instead of {} of {}",
            member.sha256,
            member.bytes
        );
    }
    if let Some(missing) = left.next() {
        bail!("{} is missing", missing.name);
    }
    // The archive ends before the compressed stream does, which carries a checksum of its own.
    io::copy(&mut tar.into_inner(), &mut io::sink()).context("its end is missing or damaged")?;
    Ok(manifest)
}

fn manifest(entry: tar::Entry<'_, impl Read>) -> anyhow::Result<Manifest> {
    ensure!(*entry.path_bytes() == *MANIFEST.as_bytes(), "it does not begin with {MANIFEST}");
    let mut text = Vec::new();
    entry.take(MOST_MANIFEST).read_to_end(&mut text).context("its manifest breaks off or is damaged")?;
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(&text).context("its manifest is unreadable")?;
    ensure!(
        format == FORMAT,
        "it is of format {format}, and this aiops ({}) reads {FORMAT}: use the version that made it",
        env!("CARGO_PKG_VERSION")
    );
    serde_json::from_slice(&text).context("its manifest is unreadable")
}

/// How many bytes were copied, and their SHA-256.
fn copy_hashing(mut from: impl Read, mut to: impl Write) -> io::Result<(u64, String)> {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 17];
    let mut bytes = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hash.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        bytes += n as u64;
    }
    to.flush()?;
    Ok((bytes, crate::model::hex(hash.finish().as_ref())))
}
