//! What time it is elsewhere: evidence, windows and leases of different hosts are compared by it.

use std::time::Duration;

use sqlx::Connection;

use crate::{clock, config::Settings};

const WITHIN: Duration = Duration::from_secs(5);

/// How far Prometheus, each Alertmanager and the database are ahead of us, in seconds; those that do not answer are left out.
pub async fn of_peers(settings: &Settings) -> Vec<(String, i64)> {
    let http = crate::http_client::new();
    let mut found = Vec::new();
    let prometheus = (!settings.prometheus.url.is_empty()).then(|| {
        ("Prometheus".to_owned(), format!("{}/-/healthy", settings.prometheus.url.trim_end_matches('/')))
    });
    let alertmanagers = settings
        .alertmanager
        .urls
        .iter()
        .map(|url| (format!("Alertmanager {url}"), format!("{}/-/healthy", url.trim_end_matches('/'))));
    for (name, url) in prometheus.into_iter().chain(alertmanagers) {
        let Ok(answer) = http.get(url).timeout(WITHIN).send().await else { continue };
        found.extend(crate::http_client::ahead(answer.headers()).map(|seconds| (name, seconds)));
    }
    found.extend(of_database(settings).await.map(|seconds| ("PostgreSQL".to_owned(), seconds)));
    found
}

async fn of_database(settings: &Settings) -> Option<i64> {
    let url = settings.store.url.expose();
    if url.is_empty() {
        return None;
    }
    let ask = async {
        let mut connection = sqlx::PgConnection::connect(url).await.ok()?;
        let query = "SELECT EXTRACT(EPOCH FROM clock_timestamp())::BIGINT";
        let at: i64 = sqlx::query_scalar(query).fetch_one(&mut connection).await.ok()?;
        Some(at - clock::now().as_second())
    };
    tokio::time::timeout(WITHIN, ask).await.ok().flatten()
}
