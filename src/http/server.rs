//! Starts and stops the server.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, middleware::from_fn, web};
use anyhow::Context;
use tokio::task::JoinHandle;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_actix_web::AppExt;

use super::{HttpDeps, State, api, doors::Doors, front, intake, probes, query, slack};
use crate::config::Settings;

/// A server that runs until it is stopped.
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
    state: web::Data<State>,
}

/// Binds `settings.listen` (port 0: any free one) and serves. Must be called within a tokio runtime.
pub fn serve(deps: HttpDeps) -> anyhow::Result<Server> {
    let settings = deps.settings.clone();
    let listen = &settings.listen;
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    let address = listener.local_addr()?;
    let state = web::Data::new(State::new(deps, address));
    let shared = state.clone();
    let http = settings.http.clone();
    let document = Arc::new(OnceLock::new());
    let server = HttpServer::new(move || {
        let (app, openapi) = App::new()
            .into_utoipa_app()
            .openapi(Document::openapi())
            .app_data(shared.clone())
            .app_data(query::path_config())
            .map(|app| app.wrap(from_fn(front::front)))
            .configure(slack::routes)
            .configure(intake::routes)
            .configure(api::routes)
            .configure(probes::routes)
            .split_for_parts();
        let known = web::Data::new(front::Routes::new(&openapi));
        let document = document
            .get_or_init(|| bytes::Bytes::from(openapi.to_json().expect("the document serialises")))
            .clone();
        let answer = move || {
            let document = document.clone();
            async move { HttpResponse::Ok().content_type("application/json").body(document) }
        };
        app.app_data(known)
            .route("/api/openapi.json", web::get().to(answer))
            .default_service(web::to(front::nowhere))
    })
    .workers(http.workers)
    .max_connections(http.max_connections)
    .keep_alive(http.keep_alive)
    .client_request_timeout(http.header_timeout)
    .client_disconnect_timeout(Duration::from_secs(2))
    // A client that has left the live stream gives its seat back at once, not at the next heartbeat.
    .h1_allow_half_closed(false)
    .shutdown_timeout(http.shutdown_timeout.as_secs())
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    Ok(Server { address, handle, task: tokio::spawn(server), state })
}

impl Server {
    /// Where it really listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes over names and source credentials from changed settings; everything else needs a restart.
    pub fn reload(&self, settings: &Settings) {
        self.state.doors.set(Doors::new(settings, self.address));
    }

    /// Takes nothing new, lets requests under way end (at most `http.shutdown_timeout`), and ends.
    pub async fn stop(self) {
        self.state.deps.stop.cancel();
        self.handle.stop(true).await;
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the HTTP server ended badly");
        }
    }
}

/// What the generated document says about the whole.
#[derive(OpenApi)]
#[openapi(
    info(title = "aiops", description = "Incident automation: intake of alerts and telemetry, incidents, approvals, runs. \
        Errors are RFC 9457 problem documents. The names beside `token` are roles; `source` is a credential of that source in \
        the settings, or a token with the role intake."),
    modifiers(&Schemes),
    components(schemas(super::problem::ProblemDocument))
)]
struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for (name, scheme) in [
            ("token", HttpAuthScheme::Bearer),
            ("source", HttpAuthScheme::Bearer),
            ("source_basic", HttpAuthScheme::Basic),
        ] {
            let scheme = HttpBuilder::new().scheme(scheme).build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}
