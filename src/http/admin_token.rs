//! The first admin token: made at the first start, kept in `<data dir>/admin.token`, where the command line finds it.

use std::{
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    model::Role,
    store::{Store, Tx, tokens},
};

const FILE: &str = "admin.token";

/// Sees that `<data_dir>/admin.token` (mode 0600) holds an admin token that the store knows. An existing file is taken as it
/// is; without one a token is made, unless the store has an admin token already (then its holder makes others). The path, if
/// the file is there.
pub async fn ensure_admin_token(store: &Store, data_dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let path = data_dir.join(FILE);
    let mut tx = store.write().await?;
    // Replicas that start together see one after another what is there.
    tx.lock("admin.token").await?;
    let secret = match std::fs::read_to_string(&path) {
        Ok(text) => {
            restrict(&path)?;
            text.trim().to_owned()
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if has_admin(&mut tx).await? {
                return Ok(None);
            }
            // The file first: a crash in between leaves a token that the next start tells the store.
            write(&path, &crate::ids::secret())?
        }
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    anyhow::ensure!(secret.len() >= 16, "{} holds no token; delete it to have one made", path.display());
    if tokens::find(&mut tx, &secret).await?.is_none() {
        add(&mut tx, &secret, &path).await?;
        tx.commit().await?;
    }
    Ok(Some(path))
}

/// Writes a new admin token where there is no file yet; the next start tells the store. The path, if one was written.
pub fn new_admin_token(data_dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let path = data_dir.join(FILE);
    if path.exists() {
        return Ok(None);
    }
    write(&path, &crate::ids::secret())?;
    Ok(Some(path))
}

async fn has_admin(tx: &mut Tx) -> anyhow::Result<bool> {
    Ok(tokens::list(tx).await?.iter().any(|t| t.role == Role::Admin && t.revoked_at.is_none()))
}

async fn add(tx: &mut Tx, secret: &str, path: &Path) -> anyhow::Result<()> {
    let taken: Vec<String> = tokens::list(tx).await?.into_iter().map(|t| t.name).collect();
    let name = if taken.iter().any(|n| n == "admin") {
        format!("admin-{}", crate::ids::opaque())
    } else {
        "admin".into()
    };
    match tokens::insert(tx, &name, Role::Admin, secret).await {
        Err(e) if e.is_conflict() => {
            anyhow::bail!("the token in {} was revoked; delete the file to have another made", path.display())
        }
        outcome => Ok(outcome?),
    }
}

fn write(path: &Path, secret: &str) -> anyhow::Result<String> {
    let writing = || format!("writing {}", path.display());
    let new = path.with_extension("token.new");
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .with_context(writing)?;
    writeln!(file, "{secret}").and_then(|()| file.sync_all()).with_context(writing)?;
    std::fs::rename(&new, path).with_context(writing)?;
    Ok(secret.to_owned())
}

fn restrict(path: &Path) -> anyhow::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    if mode != 0o600 {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others could read the admin token; now only its owner can");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("restricting {} to its owner", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn role_of(store: &Store, path: &Path) -> Option<Role> {
        let secret = std::fs::read_to_string(path).expect("a token");
        let mut tx = store.read().await.expect("readable");
        tokens::find(&mut tx, secret.trim()).await.expect("looked up").map(|t| t.role)
    }

    #[tokio::test]
    async fn the_first_start_makes_it_and_later_ones_keep_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open("", dir.path()).await.expect("a store");
        let path = ensure_admin_token(&store, dir.path()).await.expect("made").expect("a path");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(role_of(&store, &path).await, Some(Role::Admin));
        let before = std::fs::read_to_string(&path).expect("a token");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("widened");
        ensure_admin_token(&store, dir.path()).await.expect("kept");
        assert_eq!(std::fs::read_to_string(&path).expect("a token"), before);
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

        std::fs::remove_file(&path).expect("removed");
        assert_eq!(
            ensure_admin_token(&store, dir.path()).await.expect("fine"),
            None,
            "one exists in the store"
        );
    }

    #[tokio::test]
    async fn a_file_from_before_is_told_to_a_new_store() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open("", dir.path()).await.expect("a store");
        std::fs::write(dir.path().join(FILE), format!("{}\n", crate::ids::secret())).expect("written");
        let path = ensure_admin_token(&store, dir.path()).await.expect("taken").expect("a path");
        assert_eq!(role_of(&store, &path).await, Some(Role::Admin));
    }
}
