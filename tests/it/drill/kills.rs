//! The drill with `kill -9` all the way from the break to the last message: it ends as if nothing had been, but for a message
//! told twice and a question to a person about the step that was under way.
//!
//! A point is a moment of the story and a delay after it, by the drill's seed; several kills fall into one drill.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use aiops::store::{Store, audit};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    gate::Gate,
    world::{ANN, CHAT, Stage, World, our},
};
use crate::{
    kills::Random,
    llm::{fake::Reply, scene::openai_says},
    peers,
};

/// What the story must have reached before the service is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// The shop is broken; nobody has said so yet.
    Broken,
    /// Alertmanager has its 2xx; whatever follows from it is still to be done.
    Taken,
    /// A little later, when evidence is gathered and the rules answer.
    Diagnosing,
    /// The model was asked, and has not answered.
    ModelAsked,
    /// The first message is at Telegram.
    Posted,
    /// The first mail is at the server.
    Mailed,
    /// People see the question.
    Asked,
    /// A person has pressed the button.
    Answered,
    /// The restart is done, and was not answered: nobody can know.
    Step,
    /// The supervisor is asked whether it helped.
    Verifying,
    /// Alertmanager has its 2xx for the end of the alert.
    Over,
    /// The first channel says that it is over.
    OverTold,
}

use Moment::*;

/// In the order of the story, with the longest delay in milliseconds.
const MOMENTS: [(Moment, u64); 12] = [
    (Broken, 12_000),
    (Taken, 40),
    (Diagnosing, 800),
    (ModelAsked, 1000),
    (Posted, 100),
    (Mailed, 100),
    (Asked, 1000),
    (Answered, 300),
    (Step, 500),
    (Verifying, 2500),
    (Over, 400),
    (OverTold, 100),
];

/// Each moment twice in four drills, alone and close after another.
const ON_SQLITE: [&[Moment]; 4] = [
    &[Broken, Diagnosing, Posted, Asked, Step, Over],
    &[Taken, ModelAsked, Mailed, Answered, Verifying, OverTold],
    &[Broken, Taken, Diagnosing, ModelAsked, Posted, Mailed],
    &[Asked, Answered, Step, Verifying, Over, OverTold],
];

/// Here a killed owner's leases have to run out first.
const ON_POSTGRESQL: [&[Moment]; 2] = [&[Taken, Step, OverTold], &[ModelAsked, Posted, Verifying]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_all_the_way_lose_nothing_and_repeat_nothing_on_sqlite() {
    assert!(ON_SQLITE.iter().map(|kills| kills.len()).sum::<usize>() >= 20);
    for (moment, _) in MOMENTS {
        assert_eq!(ON_SQLITE.iter().filter(|kills| kills.contains(&moment)).count(), 2, "{moment:?}");
    }
    let drills = seeds(ON_SQLITE.len()).into_iter().map(|seed| Drill::new(seed, &ON_SQLITE, None));
    all(drills.collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_all_the_way_lose_nothing_and_repeat_nothing_on_postgresql() {
    let mut drills = Vec::new();
    for seed in seeds(ON_POSTGRESQL.len()) {
        drills.push(Drill::new(seed, &ON_POSTGRESQL, Some(peers::Postgres::database().await)));
    }
    all(drills).await;
}

/// One for each plan; or the one that is to be repeated or tried.
fn seeds(plans: usize) -> Vec<u64> {
    match std::env::var("DRILL_SEED") {
        Ok(seed) => vec![seed.parse().expect("DRILL_SEED is a number")],
        Err(_) => (0..plans as u64).collect(),
    }
}

/// All at once: most of a drill is waiting. Names every one that failed, with what repeats it.
async fn all(drills: Vec<Drill>) {
    let mut running = JoinSet::new();
    for drill in drills {
        let (name, seed) = (format!("{drill:?}"), drill.seed);
        running.spawn(async move { (tokio::spawn(drill.run()).await, name, seed) });
    }
    let mut failed = Vec::new();
    for (ended, name, seed) in running.join_all().await {
        if let Err(e) = ended {
            failed
                .push(format!("{name}: {e}\nrepeat it: DRILL_SEED={seed} cargo test --test it drill::kills"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[derive(Debug)]
struct Drill {
    seed: u64,
    /// With the delay of each.
    kills: Vec<(Moment, Duration)>,
    /// Of PostgreSQL.
    url: Option<String>,
}

/// What the person and the killer have done so far.
#[derive(Default)]
struct Done {
    killed: Vec<Moment>,
    /// The callback query of the last press.
    pressed: Option<String>,
    settled: usize,
}

impl Done {
    /// Whether a person has pressed and was not told that it did nothing, as under a message that a kill has left behind.
    fn has_answered(&self, world: &World) -> bool {
        let Some(press) = &self.pressed else { return false };
        let answers = world.telegram.calls("answerCallbackQuery");
        !answers.iter().any(|a| a["callback_query_id"] == press.as_str() && a["show_alert"] == true)
    }
}

impl Drill {
    fn new(seed: u64, plans: &[&[Moment]], url: Option<String>) -> Self {
        let kills = plans[seed as usize % plans.len()];
        let mut random = Random(seed);
        let delay = |moment: &Moment| {
            let (_, longest) = MOMENTS.iter().find(|(m, _)| m == moment).expect("every moment has one");
            (*moment, Duration::from_millis(random.below(*longest)))
        };
        Self { seed, kills: kills.iter().map(delay).collect(), url }
    }

    async fn run(self) {
        let dir = peers::scratch("drill");
        let gate = Gate::new();
        let store = self.url.as_ref().map_or_else(String::new, |url| format!("store: {{url: '{url}'}}\n"));
        let asks_hold = self.plans(ModelAsked);
        let stage = Stage {
            store: &store,
            playbooks: careful_playbooks(&dir),
            cloud: if asks_hold { Reply::Hang } else { says_restart() },
            model: None,
            gate: Some(&gate),
            replicas: 1,
            shared: None,
        };
        let mut world = stage.set(&dir).await;
        world.shop.hold_answer(self.plans(Step));
        world.shop.breaks().await;

        let done = self.story(&mut world, &gate).await;
        self.check(&world, &gate, &done).await;
        let (data, url) = (dir.join("data"), self.url.clone());
        world.service.child.stop();
        let store = Store::open(url.as_deref().unwrap_or_default(), &data).await.expect("it opens");
        let mut tx = store.read().await.expect("readable");
        let entries = audit::verify(&mut tx).await.expect("the chain of the audit trail holds");
        assert!(entries > done.settled as i64, "{self:?}: approved, and settled by a person: {entries}");
    }

    fn plans(&self, moment: Moment) -> bool {
        self.kills.iter().any(|(m, _)| *m == moment)
    }

    /// Kills where it is planned, does what a person would do, and ends when all has ended.
    async fn story(&self, world: &mut World, gate: &Gate) -> Done {
        let mut done = Done::default();
        let deadline = Instant::now() + Duration::from_secs(300);
        let mut look_at = Instant::now();
        loop {
            let due =
                self.kills.iter().find(|(m, _)| !done.killed.contains(m) && reached(*m, world, gate, &done));
            if let Some((moment, delay)) = due {
                tokio::time::sleep(*delay).await;
                self.kill(world, *moment).await;
                done.killed.push(*moment);
                continue;
            }
            let asked = self.kills.iter().all(|(m, _)| *m != Asked || done.killed.contains(&Asked));
            // Nobody is asked about an incident that is over: the person waits for the model, as long as the lease of whoever
            // asked it first may last.
            let advised = !self.plans(ModelAsked) || world.openai.asked().len() > 1;
            let ready = asked && advised && !done.has_answered(world);
            if let Some((message, button)) = question(world).filter(|_| ready) {
                done.pressed = Some(world.telegram.press(ANN, CHAT, message, &button));
            }
            if Instant::now() >= look_at {
                done.settled += settle(world).await;
                if done.killed.len() == self.kills.len() && over(world).await {
                    return done;
                }
                look_at = Instant::now() + Duration::from_millis(500);
            }
            assert!(
                Instant::now() < deadline,
                "{self:?} does not end; killed at {:?}, pressed: {:?}, answered: {:?}\n{:#}\n{:#?}\n{}",
                done.killed,
                done.pressed,
                world.telegram.calls("answerCallbackQuery"),
                world.service.get("/api/v1/approvals").await,
                stories(world).await,
                world.service.child.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn kill(&self, world: &mut World, moment: Moment) {
        world.service.child.kill();
        match moment {
            Step => world.shop.hold_answer(false),
            ModelAsked => world.openai.answer(says_restart()),
            _ => {}
        }
        world.service.child.restart().await;
    }

    async fn check(&self, world: &World, gate: &Gate, done: &Done) {
        let incidents = of_checkout(world).await;
        assert_eq!(incidents.len(), 1, "{self:?}: one incident: {incidents:#?}");
        let id = incidents[0]["id"].as_str().expect("an id");
        let incident = world.service.get(&format!("/api/v1/incidents/{id}")).await;
        assert_eq!(incident["state"], "resolved", "{self:?}");
        assert_eq!(
            incident["timeline"].as_array().expect("a list").iter().filter(|e| e["kind"] == "opened").count(),
            1,
            "{self:?}: {:#}",
            incident["timeline"]
        );
        if self.plans(ModelAsked) {
            let by_model =
                incident["diagnoses"].as_array().expect("a list").iter().any(|d| d["tier"] == "cloud");
            assert!(by_model, "{self:?}: the model is asked anew: {:#}", incident["diagnoses"]);
        }
        let alerts = world.service.get("/api/v1/alerts").await;
        for taken in gate.taken() {
            let known = alerts["items"].as_array().expect("a list");
            let alert = known.iter().find(|a| a["fingerprint"] == taken.fingerprint.as_str());
            let alert = alert.unwrap_or_else(|| panic!("{self:?}: {taken:?} was acknowledged, and is gone"));
            assert!(alert["incident_id"].is_string(), "{self:?}: {alert:#}");
            // A machine that is too slow may well make aiops raise an alarm about itself.
            if alert["labels"]["service"] == "checkout" {
                assert_eq!(alert["incident_id"], id, "{self:?}: {alert:#}");
            }
        }

        assert_eq!(world.shop.restarts(), 1, "{self:?}: by one restart");
        assert!(world.shop.is_healthy().await, "{self:?}: it is healed");
        assert_eq!(incident["runs"].as_array().map(Vec::len), Some(1), "{self:?}: one approval, one run");
        // A kill after the answer may fall into the step as well.
        let least = usize::from(self.plans(Step));
        assert!(
            (least..=self.kills.len()).contains(&done.settled),
            "{self:?}: a person is asked when nobody can know whether the step was done: {} times",
            done.settled
        );
        let twice = |what: &str, all: Vec<String>| {
            let different: BTreeSet<&String> = all.iter().collect();
            let duplicates = all.len() - different.len();
            assert!(!all.is_empty(), "{self:?}: {what} was told nothing");
            assert!(
                duplicates <= self.kills.len(),
                "{self:?}: {duplicates} duplicates at {what}, one for each kill at most: {all:#?}"
            );
        };
        // A message is edited: every further one is the same once more. What rings is told by its text.
        let mine = |text: &str| text.contains(&id[id.len() - 6..]);
        let posted = world.telegram.messages().into_iter().filter(|m| mine(&m.text)).map(|_| id.to_owned());
        let rang = world.telegram.rings().into_iter().map(|r| r.text).filter(|t| mine(t));
        twice("Telegram", posted.chain(rang).collect());
        let posted = world.slack.messages().into_iter().filter(|m| mine(&m.text)).map(|_| id.to_owned());
        let rang = world.slack.rings().into_iter().map(|r| r.text).filter(|t| mine(t));
        twice("Slack", posted.chain(rang).collect());
        let mails =
            world.smtp.mails().into_iter().filter(|m| header(&m.text, "Subject:").contains("checkout"));
        twice("the mail server", mails.map(|m| header(&m.text, "Message-ID:")).collect());
        let events = world.pagerduty.events();
        let triggers = events.iter().filter(|e| e["payload"].to_string().contains("checkout"));
        let keys: BTreeSet<&str> = triggers.filter_map(|e| e["dedup_key"].as_str()).collect();
        assert_eq!(keys.len(), 1, "{self:?}: one page, whatever is sent again: {events:#?}");
        let pages = world.pagerduty.alerts();
        assert!(keys.iter().all(|key| pages[*key] == "resolved"), "{self:?}: {pages:?}");

        let entries = world.service.get("/api/v1/audit").await;
        let count = |action: &str| {
            entries["items"].as_array().expect("a list").iter().filter(|e| e["action"] == action).count()
        };
        assert_eq!((count("approve"), count("settle")), (1, done.settled), "{self:?}: {entries:#}");
    }
}

/// Whether the story is where it is to be killed.
fn reached(moment: Moment, world: &World, gate: &Gate, done: &Done) -> bool {
    match moment {
        Broken => true,
        Taken | Diagnosing => gate.taken().iter().any(|a| a.firing),
        ModelAsked => !world.openai.asked().is_empty(),
        Posted => !world.telegram.messages().is_empty(),
        Mailed => !world.smtp.mails().is_empty(),
        Asked => question(world).is_some(),
        Answered => done.pressed.is_some(),
        Step => world.shop.restarts() > 0,
        Verifying => world.shop.checks() > 0,
        Over => gate.taken().iter().any(|a| !a.firing),
        OverTold => world.pagerduty.events().iter().any(|e| e["event_action"] == "resolve"),
    }
}

/// The newest message with the question, and its button.
fn question(world: &World) -> Option<(i64, String)> {
    world.telegram.messages().into_iter().rev().find_map(|m| Some((m.id, m.button("Approve")?)))
}

/// Whether there was a run that waits for a person; the person looks at the shop before saying how to go on.
async fn settle(world: &World) -> usize {
    let waiting = world.service.get("/api/v1/runs?state=needs_human").await;
    let Some(id) = waiting["items"][0]["id"].as_str() else { return 0 };
    let answer = if world.shop.restarts() > 0 { "continue" } else { "retry" };
    world.service.post(&format!("/api/v1/runs/{id}/settle"), &json!({ "answer": answer })).await;
    1
}

/// The run helped, the incident is resolved, and everybody knows.
async fn over(world: &World) -> bool {
    let incidents = of_checkout(world).await;
    let Some(id) = incidents.first().and_then(|i| i["id"].as_str()) else { return false };
    let incident = world.service.get(&format!("/api/v1/incidents/{id}")).await;
    let told = |m: &Value| m["state"] == "delivered" && m["sent_version"] == incident["version"];
    incident["state"] == "resolved"
        && incident["runs"][0]["state"] == "succeeded"
        && incident["messages"].as_array().is_some_and(|all| all.iter().all(told))
}

/// Every incident's story, for whoever has to find out why it went otherwise.
async fn stories(world: &World) -> Vec<Value> {
    let mut stories = Vec::new();
    for incident in of_checkout(world).await {
        let id = incident["id"].as_str().expect("an id");
        stories.push(world.service.get(&format!("/api/v1/incidents/{id}")).await["timeline"].clone());
    }
    stories
}

async fn of_checkout(world: &World) -> Vec<Value> {
    let page = world.service.get("/api/v1/incidents").await;
    let all = page["items"].as_array().expect("a list");
    all.iter().filter(|i| i["service"] == "checkout").cloned().collect()
}

/// The repository's, but that a restart is not to be done twice.
fn careful_playbooks(dir: &std::path::Path) -> std::path::PathBuf {
    let careful = dir.join("playbooks");
    std::fs::create_dir(&careful).expect("the drill's directory is writable");
    let text = std::fs::read_to_string(our("playbooks/restart-by-http.yaml")).expect("it is ours");
    let once = text.replace("    idempotent: true\n    retries: 1\n", "");
    assert_ne!(once, text, "the playbook says that it may be repeated");
    std::fs::write(careful.join("restart-by-http.yaml"), once).expect("the drill's directory is writable");
    careful
}

fn says_restart() -> Reply {
    let answer = json!({
        "summary": "The shop has lost all its database connections.",
        "claims": [{"text": "The alert says so itself.", "evidence": ["E1"]}],
        "playbook": {"id": "restart-by-http", "params": {}, "why": "A new process has new connections."},
    });
    openai_says(&answer.to_string(), "stop")
}

fn header(mail: &str, name: &str) -> String {
    mail.lines().find_map(|l| l.strip_prefix(name)).expect("every mail has one").trim().to_owned()
}
