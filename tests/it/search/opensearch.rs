//! A real OpenSearch: logs are found in it around an onset, its troubles are told, and our own records arrive once.

use std::{collections::BTreeMap, time::Duration};

use aiops::{
    breaker::{BreakerState, Breakers, Dependency},
    clock,
    config::{self, Settings},
    diagnose::evidence::gather,
    export::{self, Progress},
    model::{EvidenceKind, Language, LogLevel},
    search::{Logs, SearchError, Wanted, elastic::Elastic},
    store::{
        Store, incidents,
        leases::{self, Lease},
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{LONG, about, eventually, patient, unique};
use crate::{
    llm::scene::{self, Scene},
    peers::{self, OpenSearch, http},
    service::Service,
};

fn settings(url: &str, index: &str) -> config::Elasticsearch {
    let mut set = config::Elasticsearch { urls: vec![url.to_owned()], ..Default::default() };
    // Nothing here is about how soon it answers.
    set.timeout = Duration::from_secs(30);
    set.logs.index = index.to_owned();
    set
}

fn with(set: &config::Elasticsearch) -> Settings {
    let mut all = scene::settings();
    all.breaker.open = Duration::from_secs(600);
    all.breaker.open_max = Duration::from_secs(600);
    all.elasticsearch = set.clone();
    all
}

async fn open(set: &config::Elasticsearch) -> Logs {
    open_with(set, 1000).await.0
}

/// With a breaker that opens after so many failures.
async fn open_with(set: &config::Elasticsearch, failures: u32) -> (Logs, Breakers) {
    let mut all = with(set);
    all.breaker.failures = failures;
    let breakers = Breakers::new(&all.breaker);
    let (logs, writer) = Logs::open(&all, &breakers).await.expect("opens");
    assert!(writer.is_none(), "nothing is kept beside it");
    (logs, breakers)
}

impl OpenSearch {
    pub async fn send(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = http().request(method, format!("{}/{path}", self.url)).timeout(LONG);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("it answers");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    pub async fn put(&self, path: &str, body: Value) {
        let (status, said) = self.send(reqwest::Method::PUT, path, Some(&body)).await;
        assert_eq!(status, 200, "{path}: {said}");
    }

    pub async fn post(&self, path: &str) {
        let (status, said) = self.send(reqwest::Method::POST, path, None).await;
        assert_eq!(status, 200, "{path}: {said}");
    }

    async fn get(&self, path: &str) -> Value {
        self.send(reqwest::Method::GET, path, None).await.1
    }

    /// An index with fields as ECS has them.
    pub async fn log_index(&self, name: &str) {
        let keyword = || json!({ "type": "keyword" });
        let properties = json!({
            "@timestamp": { "type": "date" }, "message": { "type": "text" }, "service": { "properties": { "name": keyword() } },
            "log": { "properties": { "level": keyword() } }, "trace": { "properties": { "id": keyword() } },
            "host": { "properties": { "name": keyword() } },
        });
        let settings = json!({ "number_of_shards": 2, "number_of_replicas": 0 });
        self.put(name, json!({ "settings": settings, "mappings": { "properties": properties } })).await;
    }

    /// As Filebeat or Fluent Bit would ship them.
    pub async fn ship(&self, index: &str, lines: &[Value]) {
        let mut body = String::new();
        for line in lines {
            body.push_str(&format!("{}\n{line}\n", json!({ "index": { "_index": index } })));
        }
        let request = http().post(format!("{}/_bulk?refresh=true", self.url)).timeout(LONG);
        let answer =
            request.header("content-type", "application/x-ndjson").body(body).send().await.expect("taken");
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["errors"], false, "{answer}");
    }

    async fn count(&self, index: &str) -> usize {
        self.send(reqwest::Method::POST, &format!("{index}/_refresh"), None).await;
        self.get(&format!("{index}/_count?ignore_unavailable=true&allow_no_indices=true")).await["count"]
            .as_u64()
            .unwrap_or(0) as usize
    }
}

fn line(at: Timestamp, level: &str, message: &str) -> Value {
    json!({
        "@timestamp": at.to_string(), "message": message, "service": { "name": "shop" }, "log": { "level": level },
        "host": { "name": "web-1" },
    })
}

fn before(at: Timestamp, seconds: u64) -> Timestamp {
    clock::before(at, Duration::from_secs(seconds))
}

fn last_hours(text: &str) -> Wanted {
    let now = clock::now();
    Wanted {
        text: text.into(),
        ..Wanted::between(before(now, 20 * 3600), clock::after(now, Duration::from_secs(60)))
    }
}

#[tokio::test]
async fn a_diagnosis_finds_what_came_up_around_the_onset_in_a_real_index() {
    let server = OpenSearch::shared().await;
    let index = unique("logs-shop");
    server.log_index(&index).await;
    let set = settings(&server.url, &index);
    let mut scene = Scene::new(with(&set)).await;
    let mut about = about(&scene).await;
    about.incident.started_at = before(about.now, 120);
    let onset = about.incident.started_at;
    let mut lines = Vec::new();
    for second in (1..1700).step_by(2) {
        lines.push(line(before(onset, second), "INFO", &format!("GET /items/{second} 200")));
        if second % 20 == 1 {
            lines.push(line(
                before(onset, second),
                "WARN",
                &format!("cache miss for key {second}, reading through"),
            ));
        }
    }
    for second in 0..120 {
        let at = clock::after(onset, Duration::from_secs(second));
        let mut broken =
            line(at, "ERROR", &format!("order {second}: cannot reach database, password=hunter{second}"));
        broken["trace.id"] = format!("trace{second}").into();
        lines.push(broken);
    }
    server.ship(&index, &lines).await;
    let logs = open(&set).await;
    scene.deps.access.logs = logs.clone();
    patient(&mut scene);
    let (facts, missing) = gather(&about, &scene.deps.access, LONG).await;
    let facts: Vec<_> = facts.iter().filter(|f| f.source.as_str() == "logs").collect();
    assert!(missing.iter().all(|m| m.source != "logs"), "{missing:?}");
    assert_eq!(facts.len(), 2, "{facts:#?}");
    assert_eq!(facts[0].kind, EvidenceKind::LogRate);
    assert!(facts[0].summary.contains("17 of them errors; before it 3"), "{}", facts[0].summary);
    assert!(facts[0].data["points"].as_array().is_some_and(|p| p.len() > 10), "{}", facts[0].data);
    let russian = facts[1].summary.in_language(Language::Russian);
    assert!(
        facts[1]
            .summary
            .starts_with("error ×120 around the onset, never before: order <*> cannot reach database,"),
        "{}",
        facts[1].summary
    );
    assert!(russian.starts_with("error ×120 около начала, раньше не было: order"), "{russian}");
    assert!(!facts[1].data.to_string().contains("hunter"), "{}", facts[1].data);

    // The same questions as the embedded search answers, in the same way.
    let messages = async |wanted: &Wanted| -> Vec<String> {
        let found = logs.lines(wanted, LONG).await.expect("it answers");
        found.lines.into_iter().map(|l| l.message).collect()
    };
    assert_eq!(messages(&last_hours("DATABASE 7:")).await.len(), 1, "all words, in any case");
    for none in ["databas*", "database OR GET", "message:database", "_exists_:message", "/data.*/"] {
        assert_eq!(messages(&last_hours(none)).await, [] as [&str; 0], "{none}");
    }
    let errors = Wanted { level: Some(LogLevel::Error), limit: 1000, ..last_hours("") };
    assert_eq!(messages(&errors).await.len(), 120, "ERROR is error");
    let trace = Wanted { trace: Some("trace5".into()), service: Some("shop".into()), ..last_hours("") };
    assert_eq!(messages(&trace).await, ["order 5: cannot reach database, password=***"]);
}

#[tokio::test]
async fn paging_goes_on_where_it_was_after_the_server_was_killed_and_started_again() {
    let mut server = OpenSearch::start(&[]).await;
    let index = unique("logs");
    server.log_index(&index).await;
    // Many of one millisecond, over two shards.
    let (now, moment) = (clock::now(), before(clock::now(), 300));
    let lines: Vec<Value> = (0..130)
        .map(|i| line(if i < 90 { moment } else { before(now, 600 + i) }, "info", &format!("line n{i}")))
        .collect();
    server.ship(&index, &lines).await;
    let mut set = settings(&server.url, &index);
    // A node that is not there does not matter while another one is.
    set.urls.insert(0, format!("http://127.0.0.1:{}", peers::free_port()));
    let logs = open(&set).await;
    let wanted = |cursor: Option<String>| Wanted { limit: 40, cursor, ..last_hours("line") };
    let first = logs.lines(&wanted(None), LONG).await.expect("it answers");
    server.child.kill();
    let error = logs.lines(&wanted(first.next.clone()), LONG).await.expect_err("nobody answers");
    assert!(error.to_string().starts_with("cannot be reached: "), "{error}");
    server.child.restart().await;
    let mut seen: Vec<String> = first.lines.into_iter().map(|l| l.message).collect();
    let mut next = first.next;
    while let Some(cursor) = next.take() {
        // Its shards come up after it answers.
        let page = eventually("the next page", async || {
            logs.lines(&wanted(Some(cursor.clone())), LONG).await.ok().filter(|page| page.gaps.is_empty())
        })
        .await;
        seen.extend(page.lines.into_iter().map(|l| l.message));
        next = page.next;
    }
    let unlike: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), unlike.len()), (130, 130));
    let foreign = logs.lines(&wanted(Some("1.2".into())), LONG).await;
    assert!(matches!(foreign, Err(SearchError::Cursor)), "{foreign:?}");
}

#[tokio::test]
async fn what_a_server_cannot_give_is_named_on_the_diagnosis() {
    let server = OpenSearch::shared().await;
    let gaps = async |set: &config::Elasticsearch| -> Vec<String> {
        let mut scene = Scene::new(with(set)).await;
        let logs = open(set).await;
        scene.deps.access.logs = logs;
        patient(&mut scene);
        let (_, missing) = gather(&about(&scene).await, &scene.deps.access, LONG).await;
        missing.into_iter().filter(|m| m.source == "logs").map(|m| m.reason.to_string()).collect()
    };
    let nowhere = unique("nowhere");
    assert_eq!(gaps(&settings(&server.url, &nowhere)).await, [format!("no index is called {nowhere}")]);

    let red = unique("red");
    let apart = json!({ "settings": {
        "number_of_shards": 1, "number_of_replicas": 0, "index.routing.allocation.require._name": "nobody",
    }});
    let (status, said) = server
        .send(reqwest::Method::PUT, &format!("{red}?wait_for_active_shards=0&timeout=1s"), Some(&apart))
        .await;
    assert_eq!(status, 200, "{said}");
    let said = gaps(&settings(&server.url, &red)).await;
    assert!(said.len() == 1 && said[0].starts_with("answered 503: "), "{said:?}");

    let green = unique("green");
    server.log_index(&green).await;
    let both = gaps(&settings(&server.url, &format!("{red},{green}"))).await;
    assert_eq!(both, ["1 of 3 parts of the index did not answer"]);

    let mut wrong = settings(&server.url, &green);
    wrong.logs.fields.time = "log.level".into();
    let said = gaps(&wrong).await;
    assert!(
        !said.is_empty()
            && said.iter().all(|s| s.starts_with("refuses the query: ") || s.starts_with("answered ")),
        "{said:?}"
    );

    let gone = gaps(&settings(&format!("http://127.0.0.1:{}", peers::free_port()), &green)).await;
    assert!(gone.len() == 1 && gone[0].starts_with("cannot be reached: "), "{gone:?}");
}

/// Passes on what is asked, and nothing of what is answered.
async fn mute_proxy(url: &str) -> String {
    let to = url.trim_start_matches("http://").to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut asking, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let mut answering = tokio::net::TcpStream::connect(to).await.expect("it runs");
                let (mut from, _) = asking.split();
                let _ = tokio::io::copy(&mut from, &mut answering).await;
            });
        }
    });
    at
}

#[tokio::test]
async fn a_server_that_hangs_costs_its_timeout_and_is_left_alone_after_a_few() {
    let server = OpenSearch::shared().await;
    let mut set = settings(&mute_proxy(&server.url).await, "logs-*");
    set.timeout = Duration::from_millis(200);
    let (logs, breakers) = open_with(&set, 2).await;
    let mut said = Vec::new();
    for _ in 0..4 {
        said.push(logs.lines(&last_hours(""), LONG).await.expect_err("no answer").to_string());
    }
    assert!(
        said[0].starts_with("timed out after 200ms") || said[0].starts_with("cannot be reached"),
        "{said:?}"
    );
    assert_eq!(said[3], "circuit open");
    assert_eq!(breakers.of(Dependency::Elasticsearch).state(), BreakerState::Open);
}

/// An export over a store of its own.
struct Exporting {
    deps: export::Deps,
    lease: Lease,
}

impl Exporting {
    async fn new(store: &Store, set: &config::Elasticsearch) -> Self {
        let breakers = Breakers::new(&config::Breaker { failures: 1000, ..Default::default() });
        let elastic = Elastic::new(set, &breakers).expect("right settings");
        let prefix = set.export.prefix.clone();
        let deps = export::Deps { store: store.clone(), elastic, prefix, progress: Progress::default() };
        let mut tx = store.write().await.expect("writes");
        let lease =
            leases::acquire(&mut tx, "export", "test", Duration::from_secs(3600)).await.expect("asked");
        tx.commit().await.expect("commits");
        Self { deps, lease: lease.expect("nobody else is there") }
    }

    async fn set_up(&self) {
        let server = self.deps.elastic.server().await.expect("answers");
        for part in self.deps.elastic.parts(&server) {
            // This server may have no lifecycles.
            let installed = self.deps.elastic.install(&part).await;
            assert!(installed.is_ok() || part.name.starts_with("lifecycle"), "{}: {installed:?}", part.name);
        }
    }

    /// Turns until there is nothing more to do at once.
    async fn turns(&self) -> export::Turn {
        let mut sum = export::Turn::default();
        loop {
            let turn = export::turn(&self.deps, &self.lease).await.expect("it answers");
            sum.sent += turn.sent;
            sum.refused += turn.refused;
            if !turn.more || turn.later.is_some() {
                return export::Turn { later: turn.later, ..sum };
            }
        }
    }
}

fn exporting(url: &str, prefix: &str) -> config::Elasticsearch {
    let mut set = settings(url, "logs-*");
    set.export.prefix = prefix.to_owned();
    set
}

async fn touch(store: &Store, incident: &str) {
    let mut tx = store.write().await.expect("writes");
    incidents::touch(&mut tx, incident).await.expect("writes");
    tx.commit().await.expect("commits");
}

#[tokio::test]
async fn a_record_that_the_index_refuses_is_set_aside_and_taken_once_that_is_mended() {
    let server = OpenSearch::shared().await;
    let prefix = unique("aiops");
    let scene = Scene::new(scene::settings()).await;
    let store = scene.store.clone().exporting();
    let set = exporting(&server.url, &prefix);
    let export = Exporting::new(&store, &set).await;
    // Records from before the export are caught up with, but not into an index that would guess its fields.
    let error = export::turn(&export.deps, &export.lease).await;
    let error = match error {
        Ok(turn) => {
            assert!(turn.more, "{turn:?}");
            export::turn(&export.deps, &export.lease).await.expect_err("no template")
        }
        Err(e) => e,
    };
    assert!(error.to_string().contains("are missing or not ours: run `aiops check --fix`"), "{error}");
    export.set_up().await;
    // Somebody has made the index before, with a field of another type.
    let month = {
        let mut tx = store.read().await.expect("reads");
        let incident = incidents::get(&mut tx, &scene.incident).await.expect("reads").expect("is there");
        incident.opened_at.strftime("%Y.%m").to_string()
    };
    let index = format!("{prefix}-incidents-{month}");
    server.put(&index, json!({ "mappings": { "properties": { "service": { "type": "date" } } } })).await;
    let turn = export.turns().await;
    assert_eq!((turn.refused, &turn.later), (1, &None), "{turn:?}");
    let report = export.deps.progress.report();
    assert_eq!((&report["refused"], &report["waiting"]), (&json!(1), &json!(0)), "{report}");
    let refusal = report["refusal"].as_str().expect("why");
    assert!(refusal.starts_with("400 mapper_parsing_exception") && refusal.contains("service"), "{refusal}");
    assert_eq!(export.turns().await.refused, 0, "it is not tried again by itself");

    server.send(reqwest::Method::DELETE, &index, None).await;
    let mut tx = store.write().await.expect("writes");
    assert!(aiops::store::exports::retry(&mut tx).await.expect("writes") > 0);
    tx.commit().await.expect("commits");
    assert_eq!(export.turns().await.sent, 1);
    let document = server.get(&format!("{index}/_doc/{}", scene.incident)).await;
    assert_eq!(document["_source"]["title"], "shop is down", "{document}");
    // What is there already is not written again, and what is newer replaces it.
    touch(&store, &scene.incident).await;
    touch(&store, &scene.incident).await;
    assert_eq!(export.turns().await.sent, 1, "two changes, one document");
    let newer = server.get(&format!("{index}/_doc/{}", scene.incident)).await;
    assert_eq!(newer["_source"]["version"], 3, "{newer}");
    assert!(newer["_version"].as_i64() > document["_version"].as_i64());
    assert_eq!(server.count(&format!("{prefix}-incidents-*")).await, 1);
}

#[tokio::test]
async fn records_that_meet_a_full_queue_arrive_when_it_has_room() {
    let server = OpenSearch::start(&["thread_pool.write.size=1", "thread_pool.write.queue_size=1"]).await;
    let prefix = unique("aiops");
    let scene = Scene::new(scene::settings()).await;
    let store = scene.store.clone().exporting();
    let export = Exporting::new(&store, &exporting(&server.url, &prefix)).await;
    export.set_up().await;
    export.turns().await;
    // Others keep it busy.
    let body: String = (0..3000)
        .map(|i| format!("{{\"index\":{{\"_index\":\"busy\"}}}}\n{{\"n\":{i},\"text\":\"one of many\"}}\n"))
        .collect();
    let flood: Vec<_> = (0..12)
        .map(|_| {
            let (url, body) = (format!("{}/_bulk", server.url), body.clone());
            tokio::spawn(async move {
                loop {
                    let request = http().post(&url).header("content-type", "application/x-ndjson");
                    let _ = request.body(body.clone()).timeout(LONG).send().await;
                }
            })
        })
        .collect();
    let busy = eventually("the queue is full", async || {
        touch(&store, &scene.incident).await;
        export::turn(&export.deps, &export.lease).await.ok()?.later
    })
    .await;
    assert!(busy.starts_with("429 "), "{busy}");
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("everything is there", async || {
        let turn = export.turns().await;
        (turn.later.is_none() && export.deps.progress.report()["waiting"] == 0).then_some(())
    })
    .await;
    let mut tx = store.read().await.expect("reads");
    let incident = incidents::get(&mut tx, &scene.incident).await.expect("reads").expect("is there");
    let month = incident.opened_at.strftime("%Y.%m");
    let document = server.get(&format!("{prefix}-incidents-{month}/_doc/{}", incident.id)).await;
    assert_eq!(document["_source"]["version"], incident.version, "{document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_arrives_once_across_kills_after_check_has_installed_what_is_missing() {
    let server = OpenSearch::shared().await;
    let prefix = unique("aiops");
    let dir = peers::scratch("export");
    let yaml = format!(
        "log: {{filter: warn}}\nelasticsearch: {{urls: ['{}'], timeout: 30s, logs: {{index: 'nowhere-*'}}, export: {{prefix: {prefix}}}}}\nnotify: {{stdout: {{when: never}}}}\n",
        server.url
    );
    let mut service = Service::start_in(&dir, &yaml).await;
    let config = dir.join("aiops.yaml");
    let aiops = |args: &[&str]| {
        crate::cli::run(&dir, &[args, &["--config", config.to_str().expect("UTF-8")]].concat())
    };
    let (code, out, _) = aiops(&["check"]);
    assert_eq!(code, 1);
    assert!(out.contains("OpenSearch 2.19.1 answers in "), "{out}");
    assert!(out.contains("no index is called nowhere-*"), "{out}");
    assert!(
        out.contains(&format!("index template {prefix}-incidents  is missing; run `aiops check --fix`")),
        "{out}"
    );
    let (_, out, _) = aiops(&["check", "--fix"]);
    assert!(
        out.contains(&format!("index template {prefix}-audit")) && out.contains("was installed"),
        "{out}"
    );
    let template = server.get(&format!("_index_template/{prefix}-audit")).await;
    let (_, out, _) = aiops(&["check", "--fix"]);
    assert!(
        !out.contains("was installed") && out.contains("is installed"),
        "a second run changes nothing: {out}"
    );
    assert_eq!(server.get(&format!("_index_template/{prefix}-audit")).await, template);

    for round in 0..4 {
        let alerts: Vec<Value> = (0..25)
            .map(|i| json!({
                "labels": { "alertname": "Down", "service": format!("s{round}x{i}"), "severity": "critical" },
                "annotations": { "summary": "down, password=hunter2" },
            }))
            .collect();
        assert_eq!(service.try_post("/api/v2/alerts", &json!(alerts)).await, Some(200));
        tokio::time::sleep(Duration::from_millis(150 + 300 * round)).await;
        service.child.kill();
        service.child.restart().await;
    }
    let page = |v: &Value| (v["items"].as_array()?.len() == 100).then(|| v["items"].clone());
    service.until(LONG, "/api/v1/incidents?limit=1000", "100 incidents", page).await;
    // Diagnoses follow; then nothing waits any more.
    let quiet = |v: &Value| {
        (v["queues"]["jobs"] == 0 && v["queues"]["inbox"] == 0 && v["export"]["waiting"] == 0)
            .then(|| v["export"].clone())
    };
    let export = service.until(Duration::from_secs(120), "/api/v1/status", "all is exported", quiet).await;
    assert_eq!(export["refused"], 0, "{export}");
    let incidents = service.get("/api/v1/incidents?limit=1000").await;
    let versions: BTreeMap<String, i64> = incidents["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|i| (i["id"].as_str().expect("an id").to_owned(), i["version"].as_i64().expect("a number")))
        .collect();
    assert_eq!(server.count(&format!("{prefix}-incidents-*")).await, 100);
    let found = server.get(&format!("{prefix}-incidents-*/_search?size=1000")).await;
    let copies: BTreeMap<String, i64> = found["hits"]["hits"]
        .as_array()
        .expect("hits")
        .iter()
        .map(|h| {
            (
                h["_id"].as_str().expect("an id").to_owned(),
                h["_source"]["version"].as_i64().expect("a number"),
            )
        })
        .collect();
    assert_eq!(copies, versions, "each is there once, as new as it is here");
    assert!(!found.to_string().contains("hunter2"));
    assert!(server.count(&format!("{prefix}-diagnoses-*")).await >= 100);
    let audit = service.get("/api/v1/audit?limit=1000").await["items"].as_array().expect("a list").len();
    assert_eq!(server.count(&format!("{prefix}-audit-*")).await, audit);
}
