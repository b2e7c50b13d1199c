//! A PostgreSQL database of our own beside those that are there, dropped at the end: no table that somebody uses is touched.

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

pub struct Scratch {
    /// The server, as it was given.
    server: String,
    name: String,
    /// Of the new database.
    pub url: String,
}

impl Scratch {
    /// Makes one; the user that `server` names must be allowed to.
    pub async fn create(server: &str) -> anyhow::Result<Self> {
        let name = format!("aiops_bench_{}", &crate::ids::opaque()[..8].to_ascii_lowercase());
        let mut url = reqwest::Url::parse(server)
            .context("--store: write postgres://user:password@127.0.0.1:5432/postgres")?;
        url.set_path(&name);
        let scratch = Self { server: server.to_owned(), url: url.to_string(), name };
        scratch.say("CREATE DATABASE", "").await?;
        Ok(scratch)
    }

    /// Also while a server that has just been killed is still connected.
    pub async fn drop(self) -> anyhow::Result<()> {
        self.say("DROP DATABASE", "WITH (FORCE)").await
    }

    async fn say(&self, what: &str, how: &str) -> anyhow::Result<()> {
        let said = async {
            let mut connection = PgConnection::connect(&self.server).await?;
            connection.execute(AssertSqlSafe(format!("{what} \"{}\" {how}", self.name))).await?;
            connection.close().await
        };
        said.await.with_context(|| format!("--store: {what} {}", self.name))
    }
}
