//! Stands between Alertmanager and aiops, lets everything through, and remembers what aiops took.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use aiops::model::{Labels, fingerprint};
use serde_json::Value;

use crate::{
    fakes::{self, Answer, Request},
    peers,
};

pub struct Gate {
    server: fakes::Server,
    behind: Arc<OnceLock<String>>,
    taken: Arc<Mutex<Vec<Taken>>>,
}

/// An alert that aiops acknowledged.
#[derive(Clone, Debug)]
pub struct Taken {
    pub fingerprint: String,
    pub firing: bool,
}

impl Gate {
    pub fn new() -> Self {
        let (behind, taken) = (Arc::<OnceLock<String>>::default(), Arc::<Mutex<Vec<Taken>>>::default());
        let (to, kept, http) = (behind.clone(), taken.clone(), peers::http());
        let server = fakes::serve(move |request| {
            let (to, kept, http) = (to.clone(), kept.clone(), http.clone());
            async move { pass(&request, to.get().map_or("", String::as_str), &kept, &http).await }
        });
        Self { server, behind, taken }
    }

    /// To whom everything goes.
    pub fn open(&self, url: &str) {
        self.behind.set(url.to_owned()).expect("it is opened once");
    }

    pub fn url(&self) -> &str {
        &self.server.url
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().expect("nothing panics under it").clone()
    }
}

async fn pass(request: &Request, to: &str, taken: &Mutex<Vec<Taken>>, http: &reqwest::Client) -> Answer {
    let passed = http
        .post(format!("{to}{}", request.path))
        .header("authorization", &request.authorization)
        .header("content-type", &request.content_type)
        .timeout(Duration::from_secs(10))
        .body(request.body.clone())
        .send()
        .await;
    // Alertmanager comes again after a 5xx, as it does when nobody listens.
    let Ok(answer) = passed else { return Answer::text(502, "nobody is there") };
    let status = answer.status();
    if status.is_success() {
        taken.lock().expect("nothing panics under it").extend(alerts(&request.body));
    }
    Answer::text(status.as_u16(), &answer.text().await.unwrap_or_default())
}

fn alerts(body: &str) -> Vec<Taken> {
    let body: Value = serde_json::from_str(body).expect("Alertmanager sends JSON");
    let alerts = body["alerts"].as_array().expect("a list");
    let taken = |alert: &Value| {
        let labels: Labels = serde_json::from_value(alert["labels"].clone()).expect("text to text");
        Taken { fingerprint: fingerprint(&labels), firing: alert["status"] == "firing" }
    };
    alerts.iter().map(taken).collect()
}
