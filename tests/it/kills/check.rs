//! What must hold after the storm.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use aiops::store::{Store, audit};

use super::{
    Kill, Plan,
    house::House,
    sender::{Ledger, name},
};

/// One message as a provider got it: what it is the same as, and when.
type Told = (String, SystemTime);

pub async fn all(house: &mut House, plan: &Plan, ledger: &Ledger, kills: &[Kill]) {
    let incidents = incidents_of(house, plan, ledger).await;
    let runs = runs(house, plan, &incidents).await;
    let doubled = channels(house, plan, &incidents, kills);
    println!(
        "{} kills; {} alerts in {} incidents; deliveries: {} taken, {} refused, {} cut off; {runs}; doubled: {doubled:?}",
        kills.len(),
        ledger.alerts.len(),
        incidents.len(),
        ledger.taken,
        ledger.refused,
        ledger.cut_off,
    );
    for replica in &mut house.replicas {
        replica.child.stop();
    }
    let (url, data) = (house.url.as_deref().unwrap_or_default(), &house.replicas[0].data);
    let store = Store::open(url, data).await.expect("it opens");
    let mut tx = store.read().await.expect("readable");
    let entries = audit::verify(&mut tx).await.expect("the chain of the audit trail holds");
    assert!(entries > 0, "{plan:?}: approvals are in the audit trail");
}

/// Service → its incident: every acknowledged alert is in it, in the state that was acknowledged last.
async fn incidents_of(house: &House, plan: &Plan, ledger: &Ledger) -> BTreeMap<usize, String> {
    let known: Vec<(String, String, Option<String>)> =
        house.rows("SELECT labels, state, incident_id FROM alerts WHERE labels LIKE '%Killable%'").await;
    assert_eq!(ledger.alerts.len(), plan.alerts, "{plan:?}: all were acknowledged in the end");
    assert_eq!(known.len(), plan.alerts, "{plan:?}: and there are no others");
    let mut incidents: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (labels, state, incident) in known {
        let labels: BTreeMap<String, String> = serde_json::from_str(&labels).expect("labels are an object");
        let number = labels["instance"].split('-').nth(1).and_then(|n| n.parse().ok());
        let alert: usize = number.expect("it is one of ours");
        let (service, firing) = ledger.alerts[&alert];
        assert_eq!(labels["service"], name(service), "{plan:?}");
        assert_eq!(state, if firing { "firing" } else { "resolved" }, "{plan:?}: alert {alert}");
        let incident = incident.unwrap_or_else(|| panic!("{plan:?}: alert {alert} has no incident"));
        incidents.entry(service).or_default().insert(incident);
    }
    let stored: Vec<(String, String)> =
        house.rows("SELECT service, id FROM incidents WHERE service LIKE 'svc-%'").await;
    assert_eq!(stored.len(), plan.services, "{plan:?}: one incident for each service");
    let one = |(service, ids): (usize, BTreeSet<String>)| {
        assert_eq!(ids.len(), 1, "{plan:?}: {}: one incident: {ids:?}", name(service));
        (service, ids.into_iter().next().expect("there is one"))
    };
    incidents.into_iter().map(one).collect()
}

/// No step was done twice; what says that it succeeded was done, and what nobody can know waits for a person.
async fn runs(house: &House, plan: &Plan, incidents: &BTreeMap<usize, String>) -> String {
    let runs: Vec<(String, String)> =
        house.rows("SELECT incident_id, state FROM runs WHERE incident_id IS NOT NULL").await;
    let steps = house.steps();
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for (service, incident) in incidents {
        let of_it: Vec<&str> = runs.iter().filter(|(i, _)| i == incident).map(|(_, s)| s.as_str()).collect();
        let times = steps.get(&name(*service)).copied().unwrap_or_default();
        assert!(times <= 1, "{plan:?}: the step of {} was done {times} times", name(*service));
        match of_it.as_slice() {
            // It may recover before anybody has approved.
            [] => assert!(Plan::recovers(*service) && times == 0, "{plan:?}: {}: no run", name(*service)),
            ["succeeded"] => assert_eq!(times, 1, "{plan:?}: {} says succeeded", name(*service)),
            ["needs_human"] => {}
            other => panic!("{plan:?}: {}: one approval, one run: {other:?}", name(*service)),
        }
        for state in of_it {
            *states.entry(state.to_owned()).or_default() += 1;
        }
    }
    format!("runs: {states:?}")
}

/// Everybody who is to hear of an incident has; how many messages of each channel came twice. Each of them falls to a kill
/// between the two, and no kill has more than one to answer for in a channel.
fn channels(
    house: &House,
    plan: &Plan,
    incidents: &BTreeMap<usize, String>,
    kills: &[Kill],
) -> BTreeMap<&'static str, usize> {
    let critical: BTreeSet<usize> = incidents.keys().copied().filter(|s| Plan::is_critical(*s)).collect();
    let everything: BTreeSet<usize> = incidents.keys().copied().collect();

    // A message is edited: every further one is the same once more. What rings is told by its text.
    let mut doubled = BTreeMap::new();
    let mut look = |channel, wanted: &BTreeSet<usize>, heard: BTreeSet<usize>, told: Vec<Told>| {
        let missing: Vec<&usize> = wanted.difference(&heard).collect();
        assert!(missing.is_empty(), "{plan:?}: {channel} was not told of {missing:?}");
        doubled.insert(channel, repeats(plan, channel, told, kills));
    };
    let ours = |all: Vec<(String, SystemTime, bool)>| {
        let mut heard = BTreeSet::new();
        let mut told = Vec::new();
        for (text, at, rings) in all {
            let Some(service) = about(&text) else { continue };
            if rings {
                told.push((text, at));
            } else {
                heard.insert(service);
                told.push((name(service), at));
            }
        }
        (heard, told)
    };
    let posted = house.telegram.messages().into_iter().map(|m| (m.text, m.at, false));
    let rang = house.telegram.rings().into_iter().map(|m| (m.text, m.at, true));
    let (heard, told) = ours(posted.chain(rang).collect());
    look("Telegram", &critical, heard, told);
    let posted = house.slack.messages().into_iter().map(|m| (m.text, m.at, false));
    let rang = house.slack.rings().into_iter().map(|m| (m.text, m.at, true));
    let (heard, told) = ours(posted.chain(rang).collect());
    look("Slack", &critical, heard, told);

    // The same mail has the same Message-ID.
    let mails = house.smtp.mails();
    let heard = mails.iter().filter_map(|m| about(&header(&m.text, "Subject:"))).collect();
    let told = mails.iter().map(|m| (header(&m.text, "Message-ID:"), m.at)).collect();
    look("e-mail", &everything, heard, told);

    // PagerDuty takes what has the key of an alert as the same: nobody is paged twice, however often it is said.
    let events = house.pagerduty.events();
    let mut keys: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for event in events.iter().filter(|e| e["event_action"] == "trigger") {
        if let Some(service) = about(&event["payload"]["summary"].to_string()) {
            keys.entry(service).or_default().insert(event["dedup_key"].as_str().expect("checked").to_owned());
        }
    }
    let stands = house.pagerduty.alerts();
    for service in &everything {
        match keys.get(service).map(|keys| keys.iter().collect::<Vec<_>>()).as_deref() {
            Some([key]) => {
                let wanted = if Plan::recovers(*service) { "resolved" } else { "triggered" };
                let said: Vec<_> = events.iter().filter(|e| e["dedup_key"] == **key).collect();
                assert_eq!(stands[*key], wanted, "{plan:?}: {}: {said:#?}", name(*service));
            }
            // What is over before it could be said rings nobody's phone.
            None => assert!(Plan::recovers(*service), "{plan:?}: nobody was paged for {}", name(*service)),
            other => panic!("{plan:?}: {}: one page: {other:?}", name(*service)),
        }
    }
    doubled
}

/// How many were told again; fails if there is one that no kill of its own explains.
fn repeats(plan: &Plan, channel: &str, mut told: Vec<Told>, kills: &[Kill]) -> usize {
    // A file's time is a little older than the clock's.
    const COARSE: Duration = Duration::from_millis(50);
    told.sort_by_key(|(_, at)| *at);
    let mut last: BTreeMap<&str, SystemTime> = BTreeMap::new();
    let mut again: Vec<(SystemTime, SystemTime, &str)> = Vec::new();
    for (what, at) in &told {
        if let Some(before) = last.insert(what, *at) {
            again.push((*at, before, what));
        }
    }
    // The earliest kill that explains it is the one that explains the fewest others.
    let mut unused: Vec<Kill> = kills.to_vec();
    for (at, before, what) in &again {
        let explains = |(alive, gone): &Kill| *gone + COARSE >= *before && *alive <= *at + COARSE;
        let Some(found) = unused.iter().position(explains) else {
            let times: Vec<&SystemTime> = told.iter().filter(|(w, _)| w == what).map(|(_, at)| at).collect();
            let ended = kills.last().map(|(_, gone)| gone);
            panic!(
                "{plan:?}: {channel} was told twice, and by no kill: {what} at {times:?}; the last kill: {ended:?}"
            );
        };
        unused.remove(found);
    }
    again.len()
}

/// The service that a message is about: the one that it names first. It may cite incidents of others.
fn about(text: &str) -> Option<usize> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '-'));
    words.filter_map(|w| w.strip_prefix("svc-")?.strip_suffix("-x")?.parse().ok()).next()
}

fn header(mail: &str, name: &str) -> String {
    mail.lines().find_map(|l| l.strip_prefix(name)).expect("every mail has one").trim().to_owned()
}
