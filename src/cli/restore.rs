//! `aiops restore`: puts a backup where the settings say that the store is, after everything about it was checked.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    Context, Failure,
    backup::{self, archive::Manifest, postgres},
    output,
};
use crate::{
    app::{DirLock, make_data_dir},
    config::Settings,
    http::new_admin_token,
    store::backup::{FILES, contents, open_postgres, tables},
};

const EXAMPLES: &str = "\
Examples:
  AIOPS_DATA_DIR=/var/lib/aiops-2 aiops restore before-upgrade.tar.gz    beside the old one
  aiops restore --force before-upgrade.tar.gz                            the old one is moved aside
  AIOPS_STORE_URL=postgres://aiops@db/empty aiops restore nightly.tar.gz

Stop the service first; it must not run on what is restored. Nothing is changed unless the whole backup is sound. A message whose
delivery was not known when the backup was made is sent again.";

/// Put a backup into an empty data directory or database
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What `aiops backup` made
    file: PathBuf,
    /// Move a store that is there aside, into a directory beside it
    #[arg(long)]
    force: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?.settings;
    match settings.store.url.expose() {
        "" => into_directory(&args, &settings).await,
        url => into_database(&args, url, &settings).await,
    }
}

async fn into_directory(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let dir = &settings.data_dir;
    make_data_dir(dir)?;
    let _lock = DirLock::take(dir)?;
    let old = store_files(dir);
    if !old.is_empty() && !args.force {
        return Err(Failure::failed(format!(
            "{} holds a store already ({}); name an empty directory (data_dir, AIOPS_DATA_DIR), or have it moved aside by --force",
            dir.display(),
            old.join(", ")
        )));
    }
    let staging = backup::staging(dir)?;
    let manifest = backup::unpack(&args.file, staging.path()).await?;
    expect_engine(&manifest, "sqlite", &args.file)?;
    let aside = move_aside(dir, &old)?;
    // The state last: without it there is no store, whatever cuts this off.
    for name in FILES {
        let (from, to) = (staging.path().join(name), dir.join(name));
        let placed = File::open(&from).and_then(|f| f.sync_all()).and_then(|()| std::fs::rename(&from, &to));
        placed.with_context(|| format!("writing {}", to.display()))?;
    }
    backup::sync(dir)?;
    done(args, &manifest, &dir.display().to_string(), dir, aside)
}

async fn into_database(args: &Args, url: &str, settings: &Settings) -> Result<(), Failure> {
    let staging = backup::staging(&std::env::temp_dir())?;
    let manifest = backup::unpack(&args.file, staging.path()).await?;
    expect_engine(&manifest, "postgresql", &args.file)?;
    let store = open_postgres(url).await?;
    let there =
        tables(&mut store.read().await.map_err(anyhow::Error::from)?).await.map_err(anyhow::Error::from)?;
    if there > 0 {
        return Err(Failure::failed(format!(
            "the database that store.url names holds {there} tables already; make an empty one (createdb aiops2) and name that",
        )));
    }
    postgres::restore(url, &staging.path().join(postgres::DUMP)).await?;
    let mut tx = store.read().await.map_err(anyhow::Error::from)?;
    let found = contents(&store, &mut tx).await.map_err(anyhow::Error::from)?;
    drop(tx);
    store.close().await;
    if found != manifest.contents {
        return Err(Failure::failed(format!(
            "the restored database holds something else than the manifest says: {found:?} instead of {:?}; do not use it",
            manifest.contents
        )));
    }
    make_data_dir(&settings.data_dir)?;
    done(args, &manifest, "the database", &settings.data_dir, None)
}

fn expect_engine(manifest: &Manifest, wanted: &str, file: &Path) -> Result<(), Failure> {
    if manifest.engine == wanted {
        return Ok(());
    }
    let name = file.display();
    Err(Failure::failed(match wanted {
        "sqlite" => {
            format!("{name} is a backup of PostgreSQL: name an empty database by store.url (AIOPS_STORE_URL)")
        }
        _ => format!(
            "{name} is a backup of the embedded store, and store.url names PostgreSQL: leave store.url empty"
        ),
    }))
}

/// The files of an embedded store in `dir`, SQLite's own beside them included.
fn store_files(dir: &Path) -> Vec<String> {
    let names =
        FILES.iter().flat_map(|name| ["", "-wal", "-shm", "-journal"].map(|end| format!("{name}{end}")));
    names.filter(|name| dir.join(name).exists()).collect()
}

/// Where the old files went, if there were some.
fn move_aside(dir: &Path, names: &[String]) -> anyhow::Result<Option<PathBuf>> {
    if names.is_empty() {
        return Ok(None);
    }
    let aside = dir.join(format!("replaced-{}", crate::clock::now().strftime("%Y%m%dT%H%M%S%3fZ")));
    let moving = || format!("moving the old store into {}", aside.display());
    std::fs::create_dir(&aside).with_context(moving)?;
    for name in names {
        std::fs::rename(dir.join(name), aside.join(name)).with_context(moving)?;
    }
    Ok(Some(aside))
}

fn done(
    args: &Args,
    manifest: &Manifest,
    place: &str,
    data_dir: &Path,
    aside: Option<PathBuf>,
) -> Result<(), Failure> {
    let mut text = format!(
        "Restored {}, {}, into {place}\n{}",
        args.file.display(),
        backup::origin(manifest),
        backup::summary(&manifest.contents)
    );
    if let Some(aside) = aside {
        text += &format!("\n  the old store is in {}", aside.display());
    }
    // The backup knows tokens only by their hashes, and somebody has to get in.
    if let Some(token) = new_admin_token(data_dir)? {
        text += &format!("\n  a new admin token is in {}; it holds from the next start", token.display());
    }
    output::print(&text)
}
