//! The phone of whoever is on call, as far as a demo can have one: takes what the Slack channel posts to an incoming webhook.

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use anyhow::Context;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::clock;

/// A message that arrived.
pub struct Page {
    pub at: Timestamp,
    pub text: String,
}

pub struct Phone {
    /// What to set as `notify.slack.webhook`.
    pub webhook: String,
    pub pages: mpsc::Receiver<Page>,
    server: ServerHandle,
}

impl Phone {
    pub async fn start() -> anyhow::Result<Self> {
        let (sender, pages) = mpsc::channel(256);
        let sender = web::Data::new(sender);
        let path = format!("/{}", crate::ids::opaque());
        let route = path.clone();
        let server =
            HttpServer::new(move || App::new().app_data(sender.clone()).route(&route, web::post().to(ring)))
                .workers(1)
                .disable_signals()
                .shutdown_timeout(1)
                .bind(("127.0.0.1", 0))
                .context("opening the phone's port")?;
        let webhook = format!("http://{}{path}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self { webhook, pages, server: handle })
    }

    pub async fn stop(self) {
        self.server.stop(false).await;
    }
}

async fn ring(pages: web::Data<mpsc::Sender<Page>>, message: web::Json<serde_json::Value>) -> HttpResponse {
    let text = message["text"].as_str().unwrap_or_default().to_owned();
    match pages.try_send(Page { at: clock::now(), text }) {
        Ok(()) => HttpResponse::Ok().body("ok"),
        // As the real one does under load: the sender comes again.
        Err(_) => HttpResponse::TooManyRequests().insert_header(("retry-after", "1")).finish(),
    }
}
