//! The embedded log search: lines that came through intake, in a file of their own, within bounds.

use std::{path::Path, time::Duration};

use aiops::{
    breaker::Breakers,
    clock,
    config::Settings,
    diagnose::evidence::gather,
    intake::telegram,
    model::{EvidenceKind, Language, LogLevel, LogRecord},
    search::{Logs, SearchError, Wanted},
};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{LONG, about, eventually, patient, record};
use crate::{
    fakes::telegram::Telegram,
    llm::scene::{self, Scene},
    notify::{quiet, to_telegram},
    peers,
    service::Service,
    stores,
};

/// The search alone, over a directory of its own.
struct Kept {
    logs: Logs,
    stop: CancellationToken,
    writer: JoinHandle<()>,
}

impl Kept {
    async fn open(dir: &Path, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { data_dir: dir.to_owned(), ..Settings::default() };
        settings.logs.max_rate = 1_000_000;
        change(&mut settings);
        let (logs, writer) = Logs::open(&settings, &Breakers::new(&settings.breaker)).await.expect("opens");
        let stop = CancellationToken::new();
        let writer = tokio::spawn(writer.expect("it keeps lines").run(stop.clone()));
        Self { logs, stop, writer }
    }

    fn keep(&self, lines: &[LogRecord]) {
        self.logs.pick(lines).keep();
    }

    async fn find(&self, wanted: &Wanted) -> Vec<String> {
        let found = self.logs.lines(wanted, LONG).await.expect("it answers");
        found.lines.into_iter().map(|l| l.message).collect()
    }

    /// Everything is written when this returns.
    async fn close(self) {
        self.stop.cancel();
        self.writer.await.expect("no panic");
    }
}

fn last_hours(text: &str) -> Wanted {
    let now = clock::now();
    let back = Duration::from_secs(20 * 3600);
    let to = clock::after(now, Duration::from_secs(60));
    Wanted { text: text.into(), ..Wanted::between(clock::before(now, back), to) }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_came_in_are_found_by_api_and_command_line_also_after_a_kill() {
    let mut service = Service::start_in(&peers::scratch("search"), "").await;
    let lines = json!([
        {"service": "checkout", "level": "error", "message": "payment declined, password=hunter2", "trace.id": "4bf92f35", "host.name": "web-1"},
        {"service": "checkout", "level": "info", "message": "order 17 paid"},
        {"service": "checkout", "level": "warn", "message": "payments* are slow: 10.0.0.7:5432 \u{1b}[2J"},
        {"service": "search", "level": "error", "message": "payment unknown"},
    ]);
    service.post("/api/v1/logs", &lines).await;
    let all = |v: &serde_json::Value| (v["items"].as_array()?.len() == 4).then(|| v.clone());
    let found = service.until(LONG, "/api/v1/logs", "four lines", all).await;
    assert_eq!((&found["next"], &found["gaps"]), (&json!(null), &json!([])));
    let messages = async |query: &str| -> Vec<String> {
        let page = service.get(&format!("/api/v1/logs?{query}")).await;
        let items = page["items"].as_array().expect("a list").iter();
        items.map(|l| l["message"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(messages("service=checkout&level=error").await, ["payment declined, password=***"]);
    assert_eq!(messages("trace=4bf92f35").await.len(), 1);
    assert_eq!(messages("text=PAYMENT&service=search").await, ["payment unknown"]);
    assert_eq!(messages("text=slow+10.0.0.7").await.len(), 1, "all words, in any order");
    // No character is special.
    for none in [
        "text=pay*",
        "text=payment+OR+order",
        "text=%22",
        "text=NOT+order",
        "text=message%3Apayment",
        "text=hunter2",
    ] {
        assert_eq!(messages(none).await, [] as [&str; 0], "{none}");
    }
    assert_eq!(messages("text=(order)").await, ["order 17 paid"], "what is no word is no matter");
    let http = peers::http();
    for (wrong, why) in [
        ("cursor=zzz", "cursor is not one of this list"),
        ("level=loud", "level: "),
        ("from=2026-11-21T03:00:00Z&to=2026-11-21T02:00:00Z", "from must be before to"),
        ("foo=1", "unknown field"),
    ] {
        let url = format!("{}/api/v1/logs?{wrong}", service.url);
        let answer = http.get(url).bearer_auth(service.token()).send().await.expect("answers");
        assert_eq!(answer.status(), 400, "{wrong}");
        assert!(answer.text().await.expect("text").contains(why), "{wrong}");
    }

    service.child.kill();
    service.child.restart().await;
    let config = service.dir.join("aiops.yaml");
    let (code, out, err) = crate::cli::run(
        &service.dir,
        &["--config", config.to_str().expect("UTF-8"), "logs", "checkout", "payments*", "--for", "20h"],
    );
    assert_eq!(code, 0, "{err}");
    let line = out.lines().nth(1).expect("one line under the heading");
    assert!(line.ends_with("warn   checkout  payments* are slow: 10.0.0.7:5432 [2J"), "{out}");
    assert_eq!(out.lines().count(), 2, "{out}");
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap_or_a_repeat_while_lines_go_on_coming() {
    let dir = tempfile::tempdir().expect("a directory");
    let kept = Kept::open(dir.path(), |_| {}).await;
    let at = clock::before(clock::now(), Duration::from_secs(600));
    // Many of one moment.
    let lines: Vec<LogRecord> =
        (0..250).map(|i| record(at, "shop", LogLevel::Info, &format!("line number{i}"))).collect();
    kept.keep(&lines);
    eventually("all lines", async || {
        (kept.find(&Wanted { limit: 1000, ..last_hours("") }).await.len() == 250).then_some(())
    })
    .await;
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let wanted = Wanted { limit: 100, cursor: cursor.take(), ..last_hours("line") };
        let page = kept.logs.lines(&wanted, LONG).await.expect("it answers");
        seen.extend(page.lines.into_iter().map(|l| l.message));
        pages += 1;
        kept.keep(&[record(clock::now(), "shop", LogLevel::Info, "line that came later")]);
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let unlike: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!((pages, seen.len(), unlike.len()), (3, 250, 250));
    kept.close().await;
}

#[tokio::test]
async fn the_file_stays_within_its_bounds_and_the_oldest_lines_make_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let kept = Kept::open(dir.path(), |s| s.logs.max_bytes = 2 << 20).await;
    let text = "the quick brown fox jumps over the lazy dog while the database is slow ".repeat(4);
    for round in 0..40 {
        let now = clock::now();
        let lines: Vec<LogRecord> = (0..500)
            .map(|i| record(now, "shop", LogLevel::Info, &format!("{text} round{round} line{i}")))
            .collect();
        kept.keep(&lines);
        eventually("the round", async || {
            (!kept.find(&last_hours(&format!("round{round} line499"))).await.is_empty()).then_some(())
        })
        .await;
    }
    // 20,000 lines of 300 bytes are 6 MB without their index.
    eventually("room is made", async || {
        let used = kept.logs.report()["kept"]["bytes"].as_u64().expect("a number");
        (used > 0 && used <= 2 << 20 && kept.find(&last_hours("round0 line0")).await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(kept.find(&last_hours("round39 line499")).await.len(), 1, "the newest are there");
    kept.close().await;
    let size = std::fs::metadata(dir.path().join("logs.db")).expect("the file").len();
    assert!(size < 12 << 20, "{size} bytes");
}

#[tokio::test]
async fn more_than_the_rate_is_sampled_counted_and_told_and_errors_go_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let kept = Kept::open(dir.path(), |s| s.logs.max_rate = 100).await;
    let now = clock::now();
    let mut lines: Vec<LogRecord> =
        (0..2000).map(|i| record(now, "shop", LogLevel::Info, &format!("fine {i}"))).collect();
    lines.extend((0..20).map(|i| record(now, "shop", LogLevel::Error, &format!("broken {i}"))));
    kept.keep(&lines);
    eventually("the errors", async || (kept.find(&last_hours("broken")).await.len() == 20).then_some(()))
        .await;
    let found =
        kept.logs.lines(&Wanted { limit: 1000, ..last_hours("fine") }, LONG).await.expect("it answers");
    assert!(found.lines.len() <= 100, "{}", found.lines.len());
    let gap = &found.gaps[0];
    assert_eq!(*gap, format!("{} log lines of that time were not kept for search", 2000 - found.lines.len()));
    assert!(gap.in_language(Language::Russian).starts_with("строк лога за это время не сохранено"), "{gap}");
    kept.close().await;
}

#[tokio::test]
async fn a_damaged_file_is_put_aside_and_begun_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("logs.db"), "this is no database ".repeat(1000)).expect("written");
    let kept = Kept::open(dir.path(), |_| {}).await;
    kept.keep(&[record(clock::now(), "shop", LogLevel::Info, "as good as new")]);
    eventually("the line", async || (kept.find(&last_hours("new")).await.len() == 1).then_some(())).await;
    kept.close().await;
    assert!(dir.path().join("logs.db.damaged").exists());
}

#[tokio::test]
async fn a_diagnosis_sees_what_came_up_with_the_onset_and_not_what_was_always_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let kept = Kept::open(dir.path(), |_| {}).await;
    let mut scene = Scene::new(scene::settings()).await;
    let mut about = about(&scene).await;
    about.incident.started_at = clock::before(about.now, Duration::from_secs(120));
    let onset = about.incident.started_at;
    let mut lines = Vec::new();
    for second in 1..1700 {
        let at = clock::before(onset, Duration::from_secs(second));
        lines.push(record(at, "shop", LogLevel::Info, &format!("GET /items/{second} 200")));
        if second % 10 == 0 {
            lines.push(record(
                at,
                "shop",
                LogLevel::Warn,
                &format!("cache miss for key {second}, reading through"),
            ));
        }
    }
    for second in 0..120 {
        let at = clock::after(onset, Duration::from_secs(second));
        let mut broken = record(
            at,
            "shop",
            LogLevel::Error,
            &format!("order {second}: cannot reach database at 10.0.0.{second}"),
        );
        broken.trace_id = Some(format!("trace{second}"));
        lines.push(broken);
        if second % 10 == 0 {
            lines.push(record(
                at,
                "shop",
                LogLevel::Warn,
                &format!("cache miss for key {second}, reading through"),
            ));
        }
    }
    kept.keep(&lines);
    let count = lines.len();
    eventually("all lines", async || {
        let found = kept.find(&Wanted { limit: 1000, ..last_hours("key") }).await.len();
        (found == 169 + 12).then_some(())
    })
    .await;
    assert!(count > 1900);
    scene.deps.access.logs = kept.logs.clone();
    patient(&mut scene);
    let (facts, missing) = gather(&about, &scene.deps.access, LONG).await;
    let logs: Vec<_> = facts.iter().filter(|f| f.source.as_str() == "logs").collect();
    assert_eq!(logs.len(), 2, "{logs:#?}");
    assert_eq!(logs[0].kind, EvidenceKind::LogRate);
    // Seven minutes: 120 errors in the two since the onset, and the five before it with about a line a second.
    assert!(
        logs[0].summary.starts_with(
            "shop logs 66 lines a minute around the onset, 17 of them errors; before it 66, 0 errors"
        ),
        "{}",
        logs[0].summary
    );
    assert!(
        logs[1].summary.starts_with(
            "error ×120 around the onset, never before: order <*> cannot reach database at <*> (trace trace"
        ),
        "{}",
        logs[1].summary
    );
    assert!(missing.iter().all(|m| m.source != "logs"), "{missing:?}");
    kept.close().await;
}

#[tokio::test]
async fn without_a_place_to_search_the_gap_is_named() {
    let store = stores::postgres().await;
    let mut settings = scene::settings();
    settings.store.url = aiops::config::Secret::new("postgres://elsewhere");
    let (logs, writer) =
        Logs::open(&settings, &Breakers::new(&settings.breaker)).await.expect("nothing to open");
    assert!(writer.is_none(), "no file beside a replica");
    let error = logs.lines(&last_hours(""), LONG).await.expect_err("nobody to ask");
    assert_eq!(error.to_string(), "not configured (elasticsearch.urls)");
    assert!(
        matches!(error, SearchError::Unavailable(why) if why.in_language(Language::Russian).contains("не настроено"))
    );
    let mut scene = Scene::new(settings).await;
    scene.deps.access.logs = logs;
    scene.first().await;
    let missing = scene.seen().await.missing;
    assert!(
        missing.iter().any(|m| m.source == "logs" && m.reason == "not configured (elasticsearch.urls)"),
        "{missing:?}"
    );
    drop(store);
}

#[tokio::test]
async fn logs_are_shown_in_telegram_to_those_who_may_see_them_and_as_code() {
    const ANN: i64 = 42;
    const CHAT: i64 = -5000;
    let dir = tempfile::tempdir().expect("a directory");
    let kept = Kept::open(dir.path(), |_| {}).await;
    let lines: Vec<LogRecord> = (0..30)
        .map(|i| {
            let text = format!(
                "*bold* <b>{i}</b> /resolve @ann https://evil.example token=s3cr3tvalue {}",
                "x".repeat(400)
            );
            record(clock::now(), "checkout", LogLevel::Error, &text)
        })
        .collect();
    kept.keep(&lines);
    eventually("the lines", async || (kept.find(&last_hours("bold")).await.len() == 30).then_some(())).await;
    let store = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let poller = |language| {
        telegram::Deps::new(store.store.clone(), settings.notify.telegram.clone(), language)
            .with_logs(kept.logs.clone())
    };
    telegram.write(666, CHAT, "/logs checkout", json!({}));
    telegram.write(ANN, CHAT, "/logs checkout 2h error bold", json!({}));
    telegram.write(ANN, CHAT, "/logs checkout nothing-like-that", json!({}));
    telegram.write(ANN, CHAT, "/help", json!({}));
    let lease = crate::chat::poll_lease(&store.store).await;
    telegram::poll_once(&poller(Language::English), &lease).await.expect("the poll works");
    let sent = telegram.calls("sendMessage");
    assert_eq!(sent.len(), 3, "a stranger is not answered");
    let text = sent[0]["text"].as_str().expect("text");
    assert!(text.starts_with("Log lines since "), "{text}");
    assert!(text.contains("the newest 10 of more:\n") && !text.contains("s3cr3tvalue"), "{text}");
    assert!(text.chars().count() < 4096, "{}", text.len());
    let (entity, units) = (&sent[0]["entities"][0], text.encode_utf16().count());
    let (offset, length) =
        (entity["offset"].as_u64().expect("a number"), entity["length"].as_u64().expect("a number"));
    assert_eq!((entity["type"].as_str(), (offset + length) as usize), (Some("pre"), units));
    let before: String =
        String::from_utf16(&text.encode_utf16().take(offset as usize).collect::<Vec<_>>()).expect("whole");
    assert!(before.ends_with("of more:\n"), "every line of the log is code: {before}");
    assert!(sent[1]["text"].as_str().is_some_and(|t| t.starts_with("No such log line since ")), "{sent:?}");
    assert!(
        sent[2]["text"].as_str().is_some_and(|t| t.contains("/logs SERVICE [15m] [error] [words]")),
        "{sent:?}"
    );
    telegram.write(ANN, CHAT, "/логи checkout ошибки", json!({}));
    telegram::poll_once(&poller(Language::Russian), &lease).await.expect("the poll works");
    let sent = telegram.calls("sendMessage");
    let text = sent[3]["text"].as_str().expect("text");
    assert!(text.starts_with("Строки лога с ") && text.contains("последние 10, есть и ещё:\n"), "{text}");
    kept.close().await;
}
