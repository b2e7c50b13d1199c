//! Builds the demo's world (service, shop, supervisor, phone, customers, alert rule) and takes it down again.

use std::sync::Arc;

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Args, alerting::Alerting, customers::Customers, phone::Phone, settings, stream, supervisor::Supervisor,
};
use crate::{app::App, cli::client::Client, config::Secret, model::TimelineEntry};

/// Everything that runs during the demo.
pub struct Stage {
    pub client: Client,
    pub alerting: Arc<Alerting>,
    pub customers: Arc<Customers>,
    pub supervisor: Supervisor,
    pub phone: Phone,
    pub entries: mpsc::Receiver<TimelineEntry>,
    app: App,
    tasks: JoinSet<()>,
    cancel: CancellationToken,
    /// Removed last.
    dir: tempfile::TempDir,
}

impl Stage {
    pub async fn build(args: &Args) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("aiops-demo-").tempdir().context("making a directory")?;
        let (mut supervisor, phone) = (Supervisor::open().await?, Phone::start().await?);
        let settings = settings::of(args, dir.path(), &supervisor, &phone)?;
        let token_file = settings.data_dir.join("admin.token");
        let app = App::start(settings).await.context("starting the service")?;
        let url = format!("http://{}", app.addr());
        let token = std::fs::read_to_string(&token_file)
            .with_context(|| format!("reading {}", token_file.display()))?;
        let client = Client::at(url.clone(), Secret::new(token.trim()));
        let intake = intake_token(&client).await?;
        supervisor.launch(url.clone(), intake.clone()).await?;
        let alerting = Arc::new(Alerting::new(&supervisor.victim.url(), &url, intake));
        let customers = Arc::new(Customers::new(&supervisor.victim.url()));
        let (sender, entries) = mpsc::channel(1024);
        let (mut tasks, cancel) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(stream::follow(client.clone(), 0, sender));
        let rule = alerting.clone();
        tasks.spawn(async move { rule.watch().await });
        let (people, end) = (customers.clone(), cancel.clone());
        tasks.spawn(async move { people.order_on(&end).await });
        Ok(Self { client, alerting, customers, supervisor, phone, entries, app, tasks, cancel, dir })
    }

    /// Ends everything, the newest first.
    pub async fn clear(mut self) {
        self.cancel.cancel();
        self.tasks.shutdown().await;
        self.supervisor.stop().await;
        self.app.shutdown().await;
        self.phone.stop().await;
        if let Err(e) = self.dir.close() {
            tracing::warn!(error = %e, "the demo's directory was not removed");
        }
    }
}

/// What the shop and the alert rule send with.
async fn intake_token(client: &Client) -> anyhow::Result<Secret> {
    #[derive(Deserialize)]
    struct Created {
        token: String,
    }
    let body = json!({ "name": "demo", "role": "intake" });
    let created: Created =
        client.post("/tokens", &body).await.map_err(|e| anyhow::anyhow!("making a token: {}", e.message))?;
    Ok(Secret::new(created.token))
}
