//! Two processes on one PostgreSQL and one Redis.

use std::time::Duration;

use serde_json::{Value, json};

use super::serve::yaml;
use crate::{
    peers::{Postgres, Redis, scratch},
    service::Service,
};

const WITHIN: Duration = Duration::from_secs(90);

async fn pair(redis: &Redis) -> [Service; 2] {
    let yaml = format!("{}store: {{url: \"{}\"}}\n", yaml(redis), Postgres::database().await);
    let first = Service::start_in(&scratch("replica"), &yaml).await;
    let dir = scratch("replica");
    std::fs::create_dir(dir.join("data")).expect("a fresh directory");
    let token = first.dir.join("data/admin.token");
    std::fs::copy(token, dir.join("data/admin.token")).expect("the first start writes it");
    let second = Service::start_in(&dir, &yaml).await;
    [first, second]
}

fn read_here(status: &Value) -> Vec<u64> {
    let read = status["detect"]["partitions_read_here"].as_array().into_iter().flatten();
    read.filter_map(Value::as_u64).collect()
}

async fn lines(service: &Service, message: &str, level: &str) {
    let line = |service: &str| json!({"service": service, "level": level, "msg": message});
    // Names that lie on both partitions.
    let body = json!([line("shop"), line("db"), line("cart"), line("mail")]);
    service.try_post("/api/v1/logs", &body).await;
}

#[tokio::test]
async fn partitions_of_a_killed_replica_are_read_on_from_where_it_was_saved() {
    let redis = Redis::start().await;
    let [mut first, second] = pair(&redis).await;
    for service in [&first, &second] {
        service
            .until(WITHIN, "/api/v1/status", "each reads one partition", |status| {
                (read_here(status).len() == 1).then_some(())
            })
            .await;
    }
    for turn in 0..40 {
        lines(&second, &format!("GET /items/{turn} 200"), "info").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    second
        .until(WITHIN, "/api/v1/status", "what was learned is saved", |status| {
            status["bus"]["partitions"].as_array()?.iter().all(|p| p["waiting"] == 0).then_some(())
        })
        .await;
    first.child.kill();
    // Sent while nobody reads half of it: what the killed one had learned tells that this is new.
    for turn in 0..30 {
        lines(&second, &format!("connection refused to 10.0.0.{turn}:5432"), "error").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    second
        .until(WITHIN, "/api/v1/status", "one reads both", |status| {
            (read_here(status).len() == 2).then_some(())
        })
        .await;
    for name in ["shop", "db", "cart", "mail"] {
        second
            .until(WITHIN, "/api/v1/incidents", &format!("the failure of {name}"), |list| {
                list["items"].as_array()?.iter().any(|i| i["service"] == name).then_some(())
            })
            .await;
    }
    let status = second.get("/api/v1/status").await;
    let gaps: u64 =
        status["bus"]["partitions"].as_array().expect("two").iter().filter_map(|p| p["gaps"].as_u64()).sum();
    assert_eq!(gaps, 0, "nothing was lost: {status:#}");
}
