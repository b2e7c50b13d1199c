//! PostgreSQL's own tools, `pg_dump` and `pg_restore`, called with the settings' database; the password never stands on a command line.

use std::{path::Path, process::Stdio};

use anyhow::Context as _;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use tokio::process::Command;

use super::super::Failure;

/// The one file of such a backup.
pub const DUMP: &str = "database.dump";

/// Parameters of a URL that libpq knows by the same name; the others are ours.
const LIBPQ: [&str; 10] =
    ["host", "hostaddr", "port", "dbname", "user", "sslmode", "sslrootcert", "sslcert", "sslkey", "options"];

/// The URL without its password, and the password.
fn split(url: &str) -> anyhow::Result<(String, Option<String>)> {
    let mut url = Url::parse(url).map_err(|e| anyhow::anyhow!("store.url is not a URL: {e}"))?;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut password = url.password().map(decoded);
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if let Some((_, given)) = query.iter().find(|(name, _)| name == "password") {
        password = Some(given.clone());
    }
    // Neither fails for a URL with a host; one without has no password either.
    let _ = url.set_password(None);
    url.set_query(None);
    let known: Vec<String> = query
        .iter()
        .filter(|(name, _)| LIBPQ.contains(&name.as_str()))
        .map(|(name, value)| {
            let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            format!("{name}={value}")
        })
        .collect();
    if !known.is_empty() {
        url.set_query(Some(&known.join("&")));
    }
    Ok((url.into(), password))
}

/// Dumps what `snapshot` sees into `into`.
pub async fn dump(url: &str, snapshot: &str, into: &Path) -> Result<(), Failure> {
    let (url, password) = split(url)?;
    let mut command = Command::new("pg_dump");
    command.args(["--format=custom", "--no-owner", "--no-privileges", "--no-password", "--dbname", &url]);
    command.arg(format!("--snapshot={snapshot}")).arg("--file").arg(into);
    let instead =
        format!("pg_dump --format=custom --no-owner --no-privileges --dbname '{url}' --file aiops.dump");
    run(command, password, &instead).await
}

/// Puts a dump into an empty database, as a whole or not at all.
pub async fn restore(url: &str, dump: &Path) -> Result<(), Failure> {
    let (url, password) = split(url)?;
    let mut command = Command::new("pg_restore");
    command.args([
        "--single-transaction",
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        "--no-password",
    ]);
    command.args(["--dbname", &url]).arg(dump);
    let instead =
        format!("tar xzf FILE {DUMP} && pg_restore --single-transaction --no-owner --dbname '{url}' {DUMP}");
    run(command, password, &instead).await
}

async fn run(mut command: Command, password: Option<String>, instead: &str) -> Result<(), Failure> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = match output {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::failed(format!(
                "the store is PostgreSQL, and `{name}` is not installed here (Debian package postgresql-client)\n  \
                 Install it, or run where it is:\n  {instead}"
            )));
        }
        output => output.with_context(|| format!("running {name}"))?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::failed(format!("{name} failed: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_leaves_the_url_and_what_only_we_know_too() {
        let (url, password) =
            split("postgres://ann:p%40ss%2B+@db:5433/aiops?statement-cache-capacity=9&sslmode=require")
                .expect("a URL");
        assert_eq!(url, "postgres://ann@db:5433/aiops?sslmode=require");
        assert_eq!(password.as_deref(), Some("p@ss++"));
        let (url, password) =
            split("postgres://db/aiops?user=ann&password=s%20t&host=%2Frun%2Fpg").expect("a URL");
        assert_eq!(url, "postgres://db/aiops?user=ann&host=%2Frun%2Fpg");
        assert_eq!(password.as_deref(), Some("s t"));
    }
}
