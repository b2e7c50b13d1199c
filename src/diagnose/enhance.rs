//! The better diagnosis: asks the chain of language models to improve on the rules. If all of them fail, the rules' diagnosis
//! stands and says so.

use std::time::Instant;

use super::{
    Deps, MODELS, Outcome, by_relevance,
    prompt::Brief,
    rules::Conclusion,
    verdict::{self, Sent},
};
use crate::{
    clock, ids,
    llm::{Answered, Asked, Question},
    metrics,
    model::{
        Actor, Alert, Anomaly, Attempt, Diagnosis, Evidence, Incident, Listed, Missing, Phrase, Stage, Tier,
        TimelineKind,
    },
    store::{Tx, alerts, anomalies, decisions, diagnoses, evidence as stored, incidents, timeline},
};

/// All that is known when the models are asked.
struct Known {
    incident: Incident,
    alerts: Vec<Alert>,
    anomalies: Vec<Anomaly>,
    evidence: Vec<Evidence>,
    rules: Diagnosis,
}

/// Asks the chain, and writes the diagnosis that it accepted, or why there is none.
pub async fn enhance(deps: &Deps, incident_id: &str) -> anyhow::Result<(Tx, Outcome)> {
    let known = match look(deps, incident_id).await? {
        Ok(known) => known,
        Err(why) => return skip(deps, incident_id, why).await,
    };
    let start = Instant::now();
    let (offers, _) = deps.offers(&known.incident, &known.alerts, &known.anomalies);
    let cited: Vec<String> = known.rules.claims.iter().flat_map(|c| c.evidence.clone()).collect();
    let brief = Brief {
        incident: &known.incident,
        evidence: by_relevance(&known.evidence, &cited),
        missing: &known.rules.missing,
        hypotheses: &known.rules.claims,
        offers: &offers,
        language: deps.settings().language,
    };
    let question = |limits: &crate::config::Limits| {
        let (prompt, shown) = deps.prompts.render(&brief, limits.prompt_tokens)?;
        let evidence = shown.iter().map(|e| e.id.clone()).collect();
        Ok(Question { prompt, context: Sent { evidence, offers: offers.clone() } })
    };
    let asked = deps.chain.ask(question, |sent: &Sent, text: &str| verdict::check(text, sent)).await?;

    let mut tx = deps.access.store.write().await?;
    if incidents::lock(&mut tx, incident_id).await?.is_none() {
        return Ok((tx, Outcome::Skipped("the incident is gone".into())));
    }
    let Asked { answered, attempts, tokens_in, tokens_out, cost_usd } = asked;
    let base = Diagnosis { attempts, tokens_in, tokens_out, cost_usd, ..known.rules };
    match answered {
        Some(answered) => accept(&mut tx, base, answered, start).await?,
        None => note_failure(&mut tx, base).await?,
    }
    Ok((tx, Outcome::Diagnosed { enhance: false }))
}

/// The reason, if there is nothing to ask a model about.
async fn look(deps: &Deps, incident_id: &str) -> anyhow::Result<Result<Known, &'static str>> {
    if deps.chain.is_empty() {
        return Ok(Err("no language model is configured"));
    }
    let mut tx = deps.access.store.read_few().await?;
    let Some(incident) = incidents::get(&mut tx, incident_id).await? else {
        return Ok(Err("the incident is gone"));
    };
    if !incident.is_open() {
        return Ok(Err("the incident is resolved"));
    }
    let mut all = diagnoses::of(&mut tx, incident_id).await?;
    match all.pop() {
        Some(d) if d.tier != Tier::Rules => {
            Ok(Err("a language model has answered, and nothing new was found since"))
        }
        // Attempts on a diagnosis by rules are those of a chain that failed.
        Some(d) if !d.attempts.is_empty() => {
            Ok(Err("the language models were asked, and nothing new was found since"))
        }
        Some(rules) => {
            let evidence = stored::of(&mut tx, incident_id).await?;
            if evidence.is_empty() {
                return Ok(Err("there is no evidence to ask about"));
            }
            let alerts = alerts::of(&mut tx, incident_id, alerts::LOOKED_AT).await?;
            let anomalies = anomalies::of(&mut tx, incident_id).await?;
            Ok(Ok(Known { incident, alerts, anomalies, evidence, rules }))
        }
        None => Ok(Err("the rules have not answered yet")),
    }
}

async fn skip(deps: &Deps, incident_id: &str, why: &str) -> anyhow::Result<(Tx, Outcome)> {
    let mut tx = deps.access.store.write().await?;
    let about = decisions::About::incident(incident_id);
    decisions::add(&mut tx, Stage::Diagnose, about, "not enhanced", "llm", why).await?;
    Ok((tx, Outcome::Skipped(why.into())))
}

/// A model that chooses no playbook takes none away: the rules' suggestion was checked, its silence was not.
async fn accept(
    tx: &mut Tx,
    rules: Diagnosis,
    answered: Answered<Conclusion>,
    start: Instant,
) -> anyhow::Result<()> {
    let Answered { value: Conclusion { summary, claims, suggestion }, tier, model, latency_ms } = answered;
    let took = start.elapsed().as_secs_f64();
    metrics::DIAGNOSE_SECONDS.with_label_values(&[tier.as_str()]).observe(took);
    let diagnosis = Diagnosis {
        id: ids::new(),
        tier,
        model,
        summary,
        claims,
        suggestion: suggestion.or(rules.suggestion),
        latency_ms,
        created_at: clock::now(),
        ..rules
    };
    let d = &diagnosis;
    let why = format!(
        "{} answered: {} ({} + {} tokens, {:.4} USD)",
        d.model, d.summary, d.tokens_in, d.tokens_out, d.cost_usd
    );
    decisions::add(tx, Stage::Diagnose, decisions::About::incident(&d.incident_id), "diagnosed", "llm", &why)
        .await?;
    timeline::add(
        tx,
        &d.incident_id,
        TimelineKind::Diagnosed,
        &d.summary,
        Some(&Actor::aiops(tier.as_str())),
    )
    .await?;
    diagnoses::save(tx, d).await?;
    incidents::touch(tx, &d.incident_id).await?;
    Ok(())
}

/// The rules' diagnosis stays what people see, with the attempts and the missing words noted on it.
async fn note_failure(tx: &mut Tx, asked: Diagnosis) -> anyhow::Result<()> {
    let told = |a: &Attempt| Phrase::OfSource { source: a.provider.clone(), why: a.outcome.clone() }.into();
    let reasons = Listed(asked.attempts.iter().map(told).collect());
    let about = decisions::About::incident(&asked.incident_id);
    decisions::add(tx, Stage::Diagnose, about, "unavailable", "llm", &reasons.to_string()).await?;
    // If the rules have spoken again meanwhile, their newer diagnosis is asked about next, and is no part of this.
    let newest = diagnoses::latest(tx, &asked.incident_id).await?;
    let Some(mut d) = newest.filter(|d| d.id == asked.id) else {
        return Ok(());
    };
    d.missing.retain(|m| m.source != MODELS);
    d.missing.push(Missing { source: MODELS.into(), reason: Phrase::NoModelAnswered { reasons }.into() });
    d.attempts = asked.attempts;
    (d.tokens_in, d.tokens_out, d.cost_usd) = (asked.tokens_in, asked.tokens_out, asked.cost_usd);
    diagnoses::save(tx, &d).await?;
    incidents::touch(tx, &d.incident_id).await?;
    Ok(())
}
