//! Language models that refuse, hang, garble, truncate and invent: the diagnosis loses nothing but words.

pub mod fake;
pub mod scene;

use std::time::{Duration, Instant};

use aiops::{
    breaker::{BreakerState, Dependency},
    diagnose::Outcome,
    llm::budget,
    model::{Diagnosis, Tier},
};
use serde_json::{Value, json};

use crate::peers;
use fake::{Fake, Reply};
use scene::{OPEN, Scene, good, ollama_says, openai_says, settings, with_ollama, with_openai};

#[tokio::test]
async fn the_rules_answer_at_once_and_again_without_a_change() {
    let scene = Scene::new(settings()).await;
    assert_eq!(scene.first().await, Outcome::Diagnosed { enhance: false });
    let d = scene.seen().await;
    assert_eq!(d.summary, "Most likely: A change came 5 min before the onset: 1.4 → 1.5");
    assert_eq!((d.tier, d.claims[1].evidence.as_slice()), (Tier::Rules, ["E2".to_owned()].as_slice()));
    assert_eq!(d.suggestion.expect("the playbook fits").params["grace"], json!(5));
    let gaps: Vec<_> = d.missing.iter().map(|m| m.source.as_str()).collect();
    assert_eq!(gaps, ["telemetry", "logs", "prometheus"], "what could not be asked is said");
    let facts = scene.evidence().await;
    assert_eq!(facts[0].summary, "ShopDown: shop is down, password=***");
    let version = scene.version().await;
    assert_eq!(scene.first().await, Outcome::Unchanged);
    assert_eq!((scene.version().await, scene.evidence().await), (version, facts));
}

#[tokio::test]
async fn the_first_tier_improves_on_the_rules_and_its_cost_is_shown() {
    let openai = Fake::start(openai_says(&good().to_string(), "stop")).await;
    let scene = Scene::new(with_openai(settings(), &openai)).await;
    assert_eq!(scene.first().await, Outcome::Diagnosed { enhance: true });
    assert_eq!(scene.enhance().await, Outcome::Diagnosed { enhance: false });
    let d = scene.seen().await;
    assert_eq!((d.tier, d.model.as_str()), (Tier::Cloud, "gpt-test-2026"));
    assert_eq!(d.summary, "The deploy of 1.5 broke the shop.");
    let suggestion = d.suggestion.expect("chosen");
    assert_eq!(
        (suggestion.params["grace"].clone(), suggestion.params["mode"].clone()),
        (json!(30), json!("hard"))
    );
    assert_eq!((d.tokens_in, d.tokens_out), (1000, 100));
    assert!((d.cost_usd - 0.003).abs() < 1e-9, "{}", d.cost_usd);
    assert_eq!(d.attempts.len(), 1);

    let asked = openai.asked().remove(0);
    assert_eq!(asked.path, "/v1/chat/completions");
    assert!(asked.head.contains("authorization: bearer sk-test-key-0123456789"));
    let format = &asked.body["response_format"];
    assert_eq!(
        (format["type"].clone(), format["json_schema"]["strict"].clone()),
        (json!("json_schema"), json!(true))
    );
    let text = asked.body.to_string();
    assert!(text.contains("password=***") && !text.contains("hunter2"), "secrets stay here");

    assert!(matches!(scene.enhance().await, Outcome::Skipped(why) if why.contains("nothing new")));
    assert_eq!(openai.asked().len(), 1, "the same question is not paid for twice");
}

#[tokio::test]
async fn the_second_tier_answers_when_the_first_fails() {
    let openai = Fake::start(Reply::Json(500, json!({"error": {"message": "overloaded"}}))).await;
    let mut answer = good();
    answer["playbook"] = Value::Null;
    let ollama = Fake::start(ollama_says(&answer.to_string(), "stop")).await;
    let scene = Scene::new(with_ollama(with_openai(settings(), &openai), &ollama)).await;
    scene.first().await;
    scene.enhance().await;
    let d = scene.seen().await;
    assert_eq!((d.tier, d.model.as_str(), d.cost_usd), (Tier::Local, "tiny", 0.0));
    assert_eq!(outcomes(&d), ["openai: answered 500: overloaded", "ollama: answered"]);
    assert_eq!(openai.asked().len(), 1, "no hidden retries");
    assert_eq!(d.suggestion.expect("the rules' suggestion stays").playbook, "restart");

    let asked = ollama.asked().remove(0);
    assert_eq!(asked.path, "/api/chat");
    assert_eq!(
        asked.body["format"]["properties"]["claims"]["items"]["properties"]["evidence"]["items"]["enum"],
        json!(["E1", "E2"])
    );
    let prompt = asked.body["messages"].to_string().len() + asked.body["format"].to_string().len();
    assert!(prompt / 3 <= 4000, "{prompt} bytes");
}

/// Every way in which a tier can fail, with the words that people read.
#[tokio::test]
async fn every_fault_is_told_and_the_rules_diagnosis_stands() {
    let change = |at: &str, value: Value| {
        let mut answer = good();
        *answer.pointer_mut(at).expect("is there") = value;
        openai_says(&answer.to_string(), "stop")
    };
    let error = |status, message: &str| Reply::Json(status, json!({"error": {"message": message}}));
    let half = &good().to_string()[..60];
    let cases = [
        (
            error(401, "Incorrect API key provided: sk-test-key-0123456789"),
            "refuses our key: Incorrect API key provided: ***",
        ),
        (
            error(404, "The model `gpt-test` does not exist"),
            "does not have the model: The model `gpt-test` does not exist",
        ),
        (error(429, "Rate limit reached"), "rate limited: Rate limit reached"),
        (
            Reply::Json(
                400,
                json!({"error": {"message": "too many tokens", "code": "context_length_exceeded"}}),
            ),
            "the prompt is too long for the model: too many tokens",
        ),
        (Reply::BreakOff, "the answer is not what the API promises: it broke off"),
        (Reply::Raw("<html>hello</html>".into()), "the answer is not what the API promises: no JSON in it"),
        (
            Reply::Raw("x".repeat(2 << 20)),
            "the answer is not what the API promises: longer than 1048576 bytes",
        ),
        (
            Reply::Json(200, json!({"choices": []})),
            "the answer is not what the API promises: no choices[0].message.content",
        ),
        (openai_says(half, "length"), "the answer was cut off at the token limit"),
        (openai_says("", "content_filter"), "the model declined: content_filter"),
        (openai_says("I think the disk is full.", "stop"), "the answer does not have the agreed form"),
        (openai_says(half, "stop"), "the answer does not have the agreed form"),
        (change("/claims", json!([])), "the answer does not have the agreed form: 0 claims"),
        (
            change("/summary", json!("]Ё {}%")),
            "the answer does not have the agreed form: the summary is no sentence",
        ),
        (change("/claims/0/evidence", json!(["E99"])), "the answer cites \"E99\", which was not sent"),
        (
            change("/playbook/id", json!("rm-rf")),
            "the answer wants the playbook \"rm-rf\", which was not offered",
        ),
        (
            change("/playbook/params/grace", json!(600)),
            "the answer gives parameters that were not offered: grace must be within 1 and 60",
        ),
        (
            change("/playbook/params/grace", json!("5; reboot")),
            "the answer gives parameters that were not offered: grace must be of type",
        ),
        (
            change("/playbook/params", json!({"host": "db"})),
            "the answer gives parameters that were not offered: restart has no parameter \"host\"",
        ),
    ];
    let openai = Fake::start(Reply::Hang).await;
    let mut s = with_openai(settings(), &openai);
    s.breaker.failures = 1000;
    s.breaker.window = Duration::from_secs(3600);
    let scene = Scene::new(s).await;
    scene.first().await;
    let rules = scene.seen().await;
    for (reply, expected) in cases {
        openai.answer(reply);
        let outcome = scene.attempt().await;
        assert!(outcome.starts_with(expected), "{outcome:?} instead of {expected:?}");
        let d = scene.seen().await;
        assert_eq!(
            (&d.summary, &d.claims, &d.suggestion),
            (&rules.summary, &rules.claims, &rules.suggestion)
        );
        let gap = d.missing.iter().find(|m| m.source == "llm").expect("the missing words are told");
        assert!(
            gap.reason.starts_with(&format!("no language model answered (openai: {expected}")),
            "{}",
            gap.reason
        );
    }
    let told = scene.decisions().await;
    assert!(
        told.iter().any(|d| d.starts_with("unavailable: openai: rate limited: Rate limit reached")),
        "{told:?}"
    );
    assert!(openai.asked().iter().all(|a| !a.head.is_empty()));
}

#[tokio::test]
async fn a_model_that_hangs_is_given_up() {
    let openai = Fake::start(Reply::Hang).await;
    let mut s = with_openai(settings(), &openai);
    s.llm.openai.limits.timeout = Duration::from_millis(400);
    let scene = Scene::new(s).await;
    scene.first().await;
    let rules = scene.seen().await;
    assert_eq!(scene.attempt().await, "timed out after 400ms");
    let d = scene.seen().await;
    assert_eq!((&d.summary, &d.claims, &d.suggestion), (&rules.summary, &rules.claims, &rules.suggestion));
    let told = scene.decisions().await;
    assert!(told.iter().any(|d| d.starts_with("unavailable: openai: timed out after 400ms")), "{told:?}");
}

#[tokio::test]
async fn a_refused_connection_and_an_unknown_ollama_model_are_told() {
    let ollama =
        Fake::start(Reply::Json(404, json!({"error": "model \"tiny\" not found, try pulling it first"})))
            .await;
    let gone = Fake::start(Reply::Hang).await;
    let mut s = with_ollama(with_openai(settings(), &gone), &ollama);
    s.llm.openai.url = format!("http://127.0.0.1:{}/v1", peers::free_port());
    let scene = Scene::new(s).await;
    scene.first().await;
    scene.enhance().await;
    let told = outcomes(&scene.seen().await);
    assert!(told[0].starts_with("openai: cannot be reached: ") && told[0].contains("refused"), "{told:?}");
    assert_eq!(told[1], "ollama: does not have the model: model \"tiny\" not found, try pulling it first");
    let reached = scene.deps.chain.reach().await;
    assert!(reached.iter().all(|(_, r)| r.is_err()), "{reached:?}");
}

#[tokio::test]
async fn the_breaker_opens_half_opens_and_closes() {
    let openai = Fake::start(Reply::Json(500, json!({}))).await;
    let scene = Scene::new(with_openai(settings(), &openai)).await;
    let breaker = scene.deps.access.breakers.of(Dependency::OpenAi);
    scene.first().await;
    for _ in 0..2 {
        scene.attempt().await;
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(scene.attempt().await, "circuit open");
    assert_eq!(openai.asked().len(), 2, "an open breaker asks nothing");
    assert!(
        aiops::metrics::render().expect("renders").contains("aiops_breaker_state{dependency=\"openai\"}")
    );

    tokio::time::sleep(OPEN.mul_f64(1.3)).await;
    assert!(scene.attempt().await.starts_with("answered 500"), "the probe fails");
    assert_eq!(breaker.state(), BreakerState::Open);

    openai.answer(openai_says(&good().to_string(), "stop"));
    tokio::time::sleep(OPEN.mul_f64(1.3)).await;
    assert_eq!(scene.attempt().await, "answered");
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[tokio::test]
async fn a_prompt_that_is_too_long_or_declined_does_not_open_the_breaker() {
    let openai = Fake::start(openai_says("", "content_filter")).await;
    let scene = Scene::new(with_openai(settings(), &openai)).await;
    scene.first().await;
    for _ in 0..4 {
        scene.attempt().await;
    }
    assert_eq!(scene.deps.access.breakers.of(Dependency::OpenAi).state(), BreakerState::Closed);
    assert_eq!(openai.asked().len(), 4);
}

#[tokio::test]
async fn the_budget_runs_out_and_a_restart_does_not_refill_it() {
    let openai = Fake::start(openai_says(&good().to_string(), "stop")).await;
    let mut s = with_openai(settings(), &openai);
    s.llm.openai.limits.tokens_per_day = 5500;
    let mut scene = Scene::new(s).await;
    scene.first().await;
    let mut answered = 0;
    while scene.attempt().await == "answered" {
        answered += 1;
        assert!(answered < 6, "the budget ends");
    }
    assert!(answered >= 1);
    scene.restarted(|_| ());
    let outcome = scene.attempt().await;
    assert!(
        outcome.starts_with(&format!("over budget: {} of 5500 tokens are spent today", answered * 1100)),
        "{outcome}"
    );
    assert_eq!(openai.asked().len(), answered);
    assert_eq!(
        scene.deps.access.breakers.of(Dependency::OpenAi).state(),
        BreakerState::Closed,
        "being poor is no fault"
    );
    let mut tx = scene.store.read().await.expect("reads");
    let spent = budget::spent(&mut tx, Dependency::OpenAi).await.expect("reads");
    assert_eq!(spent.tokens, answered as u64 * 1100, "what was taken, not what was feared");
    drop(tx);

    scene.restarted(|s| s.llm.openai.limits.tokens_per_day = 0);
    assert_eq!(scene.attempt().await, "answered");
}

#[tokio::test]
async fn a_question_waits_for_a_place_and_not_for_ever() {
    let openai = Fake::start(Reply::Hang).await;
    let mut s = with_openai(settings(), &openai);
    s.llm.openai.limits.concurrency = 1;
    s.llm.openai.limits.timeout = Duration::from_millis(300);
    let scene = Scene::new(s).await;
    scene.first().await;
    let later = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        aiops::diagnose::enhance(&scene.deps, &scene.incident)
            .await
            .map(|(_, outcome)| outcome)
            .expect("the store works")
    };
    let first = async {
        let (tx, _) = aiops::diagnose::enhance(&scene.deps, &scene.incident).await.expect("the store works");
        tx.commit().await.expect("commits");
    };
    let start = Instant::now();
    tokio::join!(first, later);
    assert!(start.elapsed() < Duration::from_secs(20), "it is given up");
    assert!(openai.asked().len() <= 2);
}

/// Valid by its grammar and nonsense by its weights: whatever it says, the diagnosis stays one that may be shown.
#[tokio::test]
async fn a_real_model_that_talks_nonsense_does_no_harm() {
    let server = peers::Ollama::start("tiny").await;
    let mut s = settings();
    s.llm.ollama.url = server.url.clone();
    s.llm.ollama.model = "tiny".into();
    s.llm.ollama.limits.timeout = Duration::from_secs(60);
    let scene = Scene::new(s).await;
    scene.first().await;
    let rules = scene.seen().await;
    assert_eq!(scene.deps.chain.reach().await, [(Dependency::Ollama, Ok(()))]);
    scene.enhance().await;
    let d = scene.seen().await;
    let known: Vec<String> = scene.evidence().await.into_iter().map(|e| e.id).collect();
    assert!(!d.claims.is_empty() && d.claims.iter().flat_map(|c| &c.evidence).all(|id| known.contains(id)));
    assert_eq!(d.suggestion.as_ref().expect("one stays").playbook, "restart");
    let outcome = &d.attempts[0].outcome;
    if d.tier == Tier::Rules {
        let no_use = ["the answer was cut off", "the answer does not have the agreed form"];
        assert!(no_use.iter().any(|start| outcome.starts_with(start)), "{outcome}");
        assert_eq!((d.summary, d.claims), (rules.summary, rules.claims));
    }
}

fn outcomes(d: &Diagnosis) -> Vec<String> {
    d.attempts.iter().map(|a| format!("{}: {}", a.provider, a.outcome)).collect()
}
