//! A Redis of the caller's, through which telemetry goes under names of our own; they are gone at the end.

use anyhow::Context as _;
use redis::{Client, Value, aio::MultiplexedConnection};

pub struct Through {
    url: reqwest::Url,
    prefix: String,
    connection: MultiplexedConnection,
}

const HINT: &str = "--redis: write redis://127.0.0.1:6379";

impl Through {
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let client = Client::open(url).context(HINT)?;
        let url = reqwest::Url::parse(url).context(HINT)?;
        let connection = client.get_multiplexed_async_connection().await.context("--redis")?;
        let prefix = format!("aiops-bench-{}", &crate::ids::opaque()[..8]);
        Ok(Self { url, prefix, connection })
    }

    /// In the form of the settings file.
    pub fn settings(&self) -> serde_json::Value {
        let (user, password) = (self.url.username(), self.url.password().unwrap_or_default());
        let mut url = self.url.clone();
        // Only a URL without a host cannot do without them.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        let redis = serde_json::json!({
            "url": url.as_str(), "user": user, "password": password, "prefix": self.prefix,
        });
        serde_json::json!({ "redis": redis })
    }

    /// Processor time that Redis has used altogether.
    pub async fn cpu_seconds(&mut self) -> anyhow::Result<f64> {
        let info: String =
            redis::cmd("INFO").arg("cpu").query_async(&mut self.connection).await.context("--redis: INFO")?;
        let value = |name: &str| -> Option<f64> {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        };
        let used = value("used_cpu_sys").zip(value("used_cpu_user")).map(|(system, user)| system + user);
        used.context("--redis: INFO does not say what it has used")
    }

    /// Takes our keys away.
    pub async fn clear(&mut self) -> anyhow::Result<()> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}:*", self.prefix)).arg("COUNT").arg(1000);
            let keys: Vec<String>;
            (cursor, keys) = scan.query_async(&mut self.connection).await.context("--redis: SCAN")?;
            if !keys.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(keys).query_async::<Value>(&mut self.connection).await?;
            }
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
