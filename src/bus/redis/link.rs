//! Connections to Redis: one server, the master that Sentinels name, or a Cluster.
//!
//! A connection that failed is dropped and the next call makes a new one, asking the Sentinels anew; that is all there is to
//! a fail-over.

use std::sync::Arc;

use anyhow::Context;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, IntoConnectionInfo, Pipeline, RedisError, RedisFuture,
    RedisResult, ServerErrorKind, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::sync::Mutex;

use crate::config;

/// The way to Redis. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    server: Server,
    config: AsyncConnectionConfig,
    connection: Mutex<Connected>,
}

#[derive(Default)]
struct Connected {
    current: Option<Connection>,
    /// Counts connections, so that one failure does not drop its successor.
    number: u64,
}

enum Server {
    One(Box<Client>),
    Sentinels(Box<Mutex<SentinelClient>>),
    Cluster(Box<ClusterClient>),
}

/// A connection that several tasks may use at a time. Never block on it.
#[derive(Clone)]
pub enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Connects to nobody yet. Fails if the settings or the CA file cannot be used.
    pub fn new(settings: &config::Redis) -> anyhow::Result<Self> {
        crate::http_client::install_tls();
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(settings.timeout))
            .set_connection_timeout(Some(settings.timeout));
        let server = server(settings).context("redis")?;
        Ok(Self { shared: Arc::new(Shared { server, config, connection: Mutex::default() }) })
    }

    /// The connection, made if there is none, with its number.
    pub async fn get(&self) -> RedisResult<(Connection, u64)> {
        let mut connected = self.shared.connection.lock().await;
        if let Some(connection) = &connected.current {
            return Ok((connection.clone(), connected.number));
        }
        let connection = self.shared.connect().await?;
        connected.number += 1;
        connected.current = Some(connection.clone());
        Ok((connection, connected.number))
    }

    /// Runs one command.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let (mut connection, number) = self.get().await?;
        let result = command.query_async(&mut connection).await;
        self.look_at(result, number).await
    }

    /// Runs commands whose keys share a slot.
    pub async fn run_all<T: redis::FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        let (mut connection, number) = self.get().await?;
        let result = commands.query_async(&mut connection).await;
        self.look_at(result, number).await
    }

    /// Runs a script, which is sent along if the server does not know it.
    pub async fn script<T: redis::FromRedisValue>(
        &self,
        script: &redis::ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        let (mut connection, number) = self.get().await?;
        let result = script.invoke_async(&mut connection).await;
        self.look_at(result, number).await
    }

    async fn look_at<T>(&self, result: RedisResult<T>, number: u64) -> RedisResult<T> {
        if let Err(e) = &result
            && breaks(e)
        {
            let mut connected = self.shared.connection.lock().await;
            if connected.number == number {
                connected.current = None;
            }
        }
        result
    }
}

/// After this error, a new connection may do better: it is broken, or leads to a server that is not, or no longer, the master.
fn breaks(e: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly};
    !matches!(e.kind(), ErrorKind::Server(kind) if !matches!(kind, ReadOnly | BusyLoading | ClusterDown | MasterDown))
        && e.code().is_none_or(|code| !matches!(code, "FENCED" | "NOGROUP" | "OOM" | "MISCONF" | "NOPERM"))
}

impl Shared {
    async fn connect(&self) -> RedisResult<Connection> {
        Ok(match &self.server {
            Server::One(client) => {
                Connection::One(client.get_multiplexed_async_connection_with_config(&self.config).await?)
            }
            Server::Sentinels(client) => {
                let mut client = client.lock().await;
                Connection::One(client.get_async_connection_with_config(&self.config).await?)
            }
            Server::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        })
    }
}

fn server(settings: &config::Redis) -> anyhow::Result<Server> {
    let certificates = certificates(settings)?;
    let (user, password) = (settings.user.as_str(), settings.password.expose());
    let secure = |url: &str| url.starts_with("rediss:");
    if !settings.nodes.is_empty() {
        let nodes = settings.nodes.iter().map(String::as_str);
        let mut builder = ClusterClientBuilder::new(nodes)
            .retries(2)
            .connection_timeout(settings.timeout)
            .response_timeout(settings.timeout);
        if !user.is_empty() {
            builder = builder.username(user);
        }
        if !password.is_empty() {
            builder = builder.password(password);
        }
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        return Ok(Server::Cluster(Box::new(builder.build()?)));
    }
    if !settings.sentinels.is_empty() {
        let infos =
            settings.sentinels.iter().map(|url| Ok(url.as_str().into_connection_info()?.addr().clone()));
        let infos = infos.collect::<anyhow::Result<Vec<_>>>()?;
        let mut builder = SentinelClientBuilder::new(infos, &settings.master, SentinelServerType::Master)?;
        if secure(&settings.sentinels[0]) {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if !user.is_empty() {
            builder = builder.set_client_to_redis_username(user);
        }
        if !password.is_empty() {
            builder = builder.set_client_to_redis_password(password);
        }
        if !settings.sentinel_password.is_empty() {
            builder = builder.set_client_to_sentinel_password(settings.sentinel_password.expose());
        }
        if let Some(certificates) = certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        return Ok(Server::Sentinels(Box::new(Mutex::new(builder.build()?))));
    }
    let info = settings.url.as_str().into_connection_info()?;
    let mut login = info.redis_settings().clone();
    if !user.is_empty() {
        login = login.set_username(user);
    }
    if !password.is_empty() {
        login = login.set_password(password);
    }
    let info = info.set_redis_settings(login);
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates)?,
        None => Client::open(info)?,
    };
    Ok(Server::One(Box::new(client)))
}

fn certificates(settings: &config::Redis) -> anyhow::Result<Option<TlsCertificates>> {
    let path = &settings.ca_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let pem = std::fs::read(path).with_context(|| format!("reading ca_file {}", path.display()))?;
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(pem) }))
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }
    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }
    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
