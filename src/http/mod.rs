//! The HTTP server: intake routes, the API, probes. Checks who calls, bounds what they send, answers errors as RFC 9457.

mod admin_token;
mod api;
mod auth;
mod body;
mod doors;
mod front;
mod intake;
mod probes;
pub mod problem;
mod query;
mod server;
mod slack;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use admin_token::{ensure_admin_token, new_admin_token};
pub use server::{Server, serve};

use crate::{
    act,
    admission::Admission,
    bus::Bus,
    config::{Live, Settings},
    intake::commit::Committer,
    notify,
    search::Logs,
    store::Store,
};

/// Tells how some part of the program is, as JSON for `/api/v1/status`.
pub type Report = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;
/// Why the program is not ready, if it is not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the server needs.
#[derive(Clone)]
pub struct HttpDeps {
    pub store: Store,
    pub committer: Committer,
    pub admission: Arc<Admission>,
    /// For what people start by hand.
    pub act: act::Deps,
    pub bus: Arc<dyn Bus>,
    pub logs: Logs,
    pub settings: Arc<Settings>,
    /// For how the channels stand.
    pub outbox: Arc<notify::Deps>,
    /// Other parts that report about themselves, by name: `breakers` …
    pub reports: BTreeMap<&'static str, Report>,
    pub ready: Ready,
    /// Takes presses of Slack's buttons; none: they are off.
    pub slack: Option<Arc<crate::intake::slack::Deps>>,
    /// Ends the live streams, which would otherwise hold up a shutdown.
    pub stop: CancellationToken,
}

/// What all workers share.
pub struct State {
    deps: HttpDeps,
    settings: Arc<Settings>,
    doors: Live<doors::Doors>,
    logins: auth::Logins,
    bodies: body::Bodies,
    streams: Arc<Semaphore>,
}

impl State {
    /// `address` is the one that the listener is bound to.
    fn new(deps: HttpDeps, address: SocketAddr) -> Self {
        let settings = deps.settings.clone();
        let http = &settings.http;
        Self {
            doors: Live::new(doors::Doors::new(&settings, address)),
            logins: auth::Logins::new(http.failed_logins),
            bodies: body::Bodies::new(http.max_bodies, http.body_timeout),
            streams: Arc::new(Semaphore::new(http.max_streams)),
            settings: settings.clone(),
            deps,
        }
    }
}
