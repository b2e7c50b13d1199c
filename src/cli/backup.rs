//! `aiops backup`: one file with all that the store holds, taken while the service runs, checked before it is called done.

pub(super) mod archive;
pub(super) mod postgres;

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::{Context, Exit, Failure, output};
use crate::{
    config::Settings,
    store::backup::{self, Contents},
};
use archive::Manifest;

const EXAMPLES: &str = "\
Examples:
  aiops backup /var/backups/aiops             a file named by the time in that directory
  aiops backup before-upgrade.tar.gz
  aiops backup verify before-upgrade.tar.gz   is it whole? Nothing is changed
  AIOPS_DATA_DIR=/var/lib/aiops-2 aiops restore before-upgrade.tar.gz

The service may run: whatever it acknowledged before the backup began is in it. It reads the store that the settings name: the
files of the data directory, or PostgreSQL by pg_dump. Settings, playbooks and tokens' files are not in it.";

/// Save all that the store holds into one file, also while the service runs
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The file to make, or a directory in which it is named by the time
    #[arg(value_name = "FILE|DIR", required = true)]
    to: Option<PathBuf>,
    /// Print what it holds as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
}

/// Unpack a backup beside the rest of the system, and check that it is whole
#[derive(Debug, clap::Args)]
struct Verify {
    file: PathBuf,
    /// Print what it holds as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    match (args.command, args.to) {
        (Some(Command::Verify(verify)), _) => self::verify(verify).await,
        (None, Some(to)) => save(&to, args.json, &context.settings()?.settings).await,
        (None, None) => Err(Failure::new(Exit::Usage, "name the file to make, or a directory")),
    }
}

async fn save(to: &Path, as_json: bool, settings: &Settings) -> Result<(), Failure> {
    let target = target(to)?;
    let folder = folder(&target);
    // Beside the target: there must be room for it anyway, and what is there is renamed and not copied.
    let staging = staging(folder)?;
    let manifest = collect(settings, staging.path()).await?;
    let writing = || format!("writing {}", target.display());
    let mut file =
        tempfile::Builder::new().prefix(".aiops-backup-").tempfile_in(folder).with_context(writing)?;
    archive::pack(&manifest, staging.path(), file.as_file_mut()).with_context(writing)?;
    file.as_file().sync_all().with_context(writing)?;
    // What was written is what can be read again.
    archive::unpack(file.path(), |_| Ok(io::sink()))?;
    file.persist_noclobber(&target).map_err(|e| e.error).with_context(writing)?;
    sync(folder)?;
    let bytes = std::fs::metadata(&target).with_context(writing)?.len();
    if as_json {
        output::print_json(&json!({ "file": target, "bytes": bytes, "manifest": manifest }))?;
    } else {
        let summary = summary(&manifest.contents);
        output::print(&format!("{}: {bytes} bytes, checked\n{summary}", target.display()))?;
    }
    match manifest.contents.audit_problem {
        None => Ok(()),
        Some(problem) => Err(Failure::failed(format!("the backup is made, but of this store {problem}"))),
    }
}

/// Puts the store's files into `staging`, and says what they hold.
async fn collect(settings: &Settings, staging: &Path) -> Result<Manifest, Failure> {
    let url = settings.store.url.expose();
    if url.is_empty() {
        let dir = &settings.data_dir;
        for name in backup::FILES {
            let path = dir.join(name);
            let there = path.is_file();
            let message =
                format!("{} is not there: data_dir must name the directory of `aiops serve`", path.display());
            there.then_some(()).ok_or_else(|| Failure::failed(message))?;
        }
        backup::snapshot(dir, staging).await?;
        let contents = look(staging).await?;
        return Ok(Manifest::of(staging, &backup::FILES, "sqlite", contents)?);
    }
    let store = backup::open_postgres(url).await?;
    let mut tx = store.read().await.map_err(anyhow::Error::from)?;
    let snapshot = backup::export_snapshot(&mut tx).await.map_err(anyhow::Error::from)?;
    let contents = backup::contents(&store, &mut tx).await.map_err(anyhow::Error::from)?;
    // The transaction lasts until the dump is made: it is what keeps the snapshot.
    postgres::dump(url, &snapshot, &staging.join(postgres::DUMP)).await?;
    drop(tx);
    store.close().await;
    Ok(Manifest::of(staging, &[postgres::DUMP], "postgresql", contents)?)
}

async fn verify(args: Verify) -> Result<(), Failure> {
    let staging = staging(&std::env::temp_dir())?;
    let manifest = unpack(&args.file, staging.path()).await?;
    if args.json {
        return output::print_json(&manifest);
    }
    output::print(&format!(
        "{} is whole, {}\n{}",
        args.file.display(),
        origin(&manifest),
        summary(&manifest.contents)
    ))
}

/// Unpacks an archive into `into` and checks all that can be checked without a server: checksums, SQLite's own consistency, that
/// the files hold what the manifest says, the chain of the audit trail among it.
pub(super) async fn unpack(file: &Path, into: &Path) -> Result<Manifest, Failure> {
    let known: Vec<&str> = backup::FILES.into_iter().chain([postgres::DUMP]).collect();
    let manifest = archive::unpack(file, |name| {
        if !known.contains(&name) {
            return Err(io::Error::other(format!("{name:?} belongs to no backup")));
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(into.join(name))
    })?;
    let (schema, newest) = (manifest.contents.schema, backup::newest_schema());
    if schema > newest {
        return Err(Failure::failed(format!(
            "{} was made by aiops {} with schema {schema}, and this aiops ({}) knows up to {newest}: use that version or a newer one",
            file.display(),
            manifest.aiops,
            env!("CARGO_PKG_VERSION")
        )));
    }
    let expected: &[&str] = match manifest.engine.as_str() {
        "sqlite" => &backup::FILES,
        _ => &[postgres::DUMP],
    };
    if manifest.files.iter().map(|m| m.name.as_str()).ne(expected.iter().copied()) {
        return Err(Failure::failed(format!("{} does not hold the files of a backup", file.display())));
    }
    if manifest.engine == "sqlite" {
        let found = look(into).await?;
        if found != manifest.contents {
            return Err(Failure::failed(format!(
                "{} holds something else than its manifest says: {found:?} instead of {:?}",
                file.display(),
                manifest.contents
            )));
        }
    }
    Ok(manifest)
}

/// What copies of the embedded store's files hold.
async fn look(dir: &Path) -> anyhow::Result<Contents> {
    let store = backup::open_copies(dir).await?;
    let contents = backup::contents(&store, &mut store.read().await?).await?;
    store.close().await;
    Ok(contents)
}

fn target(to: &Path) -> Result<PathBuf, Failure> {
    let target = match to.is_dir() {
        true => to.join(format!("aiops-{}.tar.gz", crate::clock::now().strftime("%Y%m%dT%H%M%SZ"))),
        false => to.to_owned(),
    };
    let refused = if target.exists() {
        format!("{} is there already; name another file", target.display())
    } else if !folder(&target).is_dir() {
        format!("{} is not a directory; make it first", folder(&target).display())
    } else {
        return Ok(target);
    };
    Err(Failure::failed(refused))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A directory for its maker only; it goes when it is dropped.
pub(super) fn staging(within: &Path) -> anyhow::Result<tempfile::TempDir> {
    let making = || format!("making a directory in {}", within.display());
    tempfile::Builder::new()
        .prefix(".aiops-staging-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(within)
        .with_context(making)
}

/// What was renamed into a directory is there after a power cut, too.
pub(super) fn sync(dir: &Path) -> anyhow::Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).with_context(|| format!("writing {}", dir.display()))
}

/// `made 2026-11-21 15:04:05 UTC by aiops 0.1.0 (sqlite, schema 6)`.
pub(super) fn origin(m: &Manifest) -> String {
    let at = output::date_time(m.made_at);
    let (aiops, engine) = (output::line(&m.aiops), output::line(&m.engine));
    format!("made {at} by aiops {aiops} ({engine}, schema {})", m.contents.schema)
}

pub(super) fn summary(contents: &Contents) -> String {
    let rows: Vec<String> =
        contents.rows.iter().map(|(table, n)| format!("{} {n}", output::line(table))).collect();
    let audit = match &contents.audit_problem {
        None => "the audit trail is whole".to_owned(),
        Some(problem) => output::line(problem),
    };
    format!("  {}\n  alerts that wait to take effect: {}\n  {audit}", rows.join(", "), contents.waiting)
}
