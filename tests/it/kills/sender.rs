//! Senders of the storm: each repeats what was not acknowledged, as Alertmanager does, and keeps a ledger of what was.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Plan, Random};

const SENDERS: usize = 3;
/// A sender that gives up earlier than the service could have its answer late.
const PATIENCE: Duration = Duration::from_secs(30);

/// The ways into the service, one for each replica, all with the same token.
#[derive(Clone)]
pub struct Doors {
    pub urls: Vec<String>,
    pub token: String,
    pub http: reqwest::Client,
}

impl Doors {
    /// What came of it, if anything did: it may be killed meanwhile.
    async fn post(&self, to: usize, path: &str, body: &Value) -> Option<u16> {
        let request = self.http.post(format!("{}{path}", self.urls[to])).bearer_auth(&self.token);
        let answer = request.timeout(PATIENCE).json(body).send().await.ok()?;
        Some(answer.status().as_u16())
    }

    async fn get(&self, to: usize, path: &str) -> Option<Value> {
        let request = self.http.get(format!("{}{path}", self.urls[to])).bearer_auth(&self.token);
        request.timeout(PATIENCE).send().await.ok()?.json().await.ok()
    }
}

/// One delivery: an alert of a service, firing or over.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    service: usize,
    /// The alert's number among all.
    alert: usize,
    firing: bool,
}

/// What was acknowledged.
#[derive(Default)]
pub struct Ledger {
    /// Alert → service and whether the last thing that was acknowledged of it is that it fires.
    pub alerts: BTreeMap<usize, (usize, bool)>,
    /// Deliveries that were answered with 200, with 503, and not at all.
    pub taken: usize,
    pub refused: usize,
    pub cut_off: usize,
}

/// The senders, and somebody who approves whatever is asked.
pub struct Storm {
    senders: Vec<JoinHandle<Ledger>>,
    approver: CancellationToken,
}

impl Storm {
    /// `progress` counts the kills: senders go along with them.
    pub fn begin(plan: &Plan, doors: Doors, progress: watch::Receiver<usize>) -> Self {
        let since = aiops::clock::now();
        let senders = (0..SENDERS).map(|sender| {
            let (deliveries, doors) = (deliveries(plan, sender), doors.clone());
            let (random, progress) = (Random(plan.seed ^ (sender as u64 + 1)), progress.clone());
            tokio::spawn(deliver(*plan, deliveries, doors, random, progress, since))
        });
        let senders = senders.collect();
        let approver = CancellationToken::new();
        tokio::spawn(approver.clone().run_until_cancelled_owned(approve(doors, Random(plan.seed))));
        Self { senders, approver }
    }

    /// Until everything was acknowledged. Whatever is asked is approved until this is dropped.
    pub async fn ends(&mut self) -> Ledger {
        let mut whole = Ledger::default();
        for sender in self.senders.drain(..) {
            let one = sender.await.expect("a sender hears what it may hear");
            whole.alerts.extend(one.alerts);
            whole.taken += one.taken;
            whole.refused += one.refused;
            whole.cut_off += one.cut_off;
        }
        whole
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.approver.cancel();
    }
}

/// What one sender delivers, in its order: all alerts of the services that are its own, and later, for some, that they are over.
fn deliveries(plan: &Plan, sender: usize) -> Vec<Delivery> {
    let mine = || (0..plan.services).filter(|service| service % SENDERS == sender);
    let of = |service: usize, firing| {
        (service..plan.alerts).step_by(plan.services).map(move |alert| Delivery { service, alert, firing })
    };
    let begin = mine().flat_map(|service| of(service, true));
    let recover = mine().filter(|service| Plan::recovers(*service)).flat_map(|service| of(service, false));
    begin.chain(recover).collect()
}

async fn deliver(
    plan: Plan,
    deliveries: Vec<Delivery>,
    doors: Doors,
    mut random: Random,
    mut progress: watch::Receiver<usize>,
    since: Timestamp,
) -> Ledger {
    let mut ledger = Ledger::default();
    for (n, delivery) in deliveries.iter().enumerate() {
        let due = n * plan.kills / deliveries.len();
        progress.wait_for(|kills| *kills >= due).await.expect("killing goes on");
        // Being one of two, it also sends some of what was taken.
        let mut times = 1 + usize::from(random.below(4) == 0);
        while times > 0 {
            let to = random.below(doors.urls.len() as u64) as usize;
            match doors.post(to, "/api/v1/webhooks/alertmanager", &payload(delivery, since)).await {
                Some(200) => {
                    ledger.alerts.insert(delivery.alert, (delivery.service, delivery.firing));
                    ledger.taken += 1;
                    times -= 1;
                    continue;
                }
                Some(503) => ledger.refused += 1,
                Some(other) => panic!("a sender heard {other}"),
                None => ledger.cut_off += 1,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    ledger
}

async fn approve(doors: Doors, mut random: Random) {
    loop {
        let to = random.below(doors.urls.len() as u64) as usize;
        let page = doors.get(to, "/api/v1/approvals?state=pending").await.unwrap_or_default();
        for a in page["items"].as_array().into_iter().flatten() {
            let path = format!("/api/v1/approvals/{}/approve", a["id"].as_str().expect("an id"));
            doors.post(to, &path, &json!({ "plan_hash": a["plan_hash"] })).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub fn name(service: usize) -> String {
    format!("svc-{service}-x")
}

fn payload(delivery: &Delivery, since: Timestamp) -> Value {
    let Delivery { service, alert, firing } = *delivery;
    let status = if firing { "firing" } else { "resolved" };
    let severity = if Plan::is_critical(service) { "critical" } else { "warning" };
    let ends = if firing { "0001-01-01T00:00:00Z".to_owned() } else { aiops::clock::now().to_string() };
    json!({
        "receiver": "aiops", "status": status, "version": "4", "groupKey": "{}", "truncatedAlerts": 0,
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am.example",
        "alerts": [{
            "status": status,
            "labels": {
                "alertname": "Killable", "service": name(service), "severity": severity,
                "instance": format!("i-{alert}-x"), "cluster": "eu-1", "team": "shop", "env": "production"
            },
            "annotations": {
                "summary": format!("{} is down", name(service)),
                "description": "It has answered none of the last requests; see the dashboard of the service."
            },
            "startsAt": since.to_string(), "endsAt": ends, "generatorURL": ""
        }]
    })
}
