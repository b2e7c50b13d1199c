//! Tokens per day and provider, kept in the store so that a restart does not refill them.

use serde::{Deserialize, Serialize};

use crate::{
    breaker::Dependency,
    clock,
    store::{Result, Store, Tx, flags},
};

/// What a provider has taken on one day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Spent {
    /// In UTC: `2026-11-21`.
    pub day: String,
    /// Prompts and answers; those under way by estimate.
    pub tokens: u64,
}

/// What came of a [`reserve`].
#[derive(Debug, PartialEq)]
pub enum Reserved {
    Granted,
    /// So much is spent already.
    Exhausted(u64),
}

/// Takes `estimate` out of the day's budget (`limit`; 0: none) before anything is sent, so that a crash in between costs
/// budget and never money.
pub async fn reserve(store: &Store, name: Dependency, limit: u64, estimate: u64) -> Result<Reserved> {
    let mut tx = store.write().await?;
    let mut spent = lock(&mut tx, name).await?;
    let wanted = spent.tokens.saturating_add(estimate);
    if limit > 0 && wanted > limit {
        return Ok(Reserved::Exhausted(spent.tokens));
    }
    spent.tokens = wanted;
    save(&mut tx, name, &spent).await?;
    tx.commit().await?;
    Ok(Reserved::Granted)
}

/// Replaces the estimate by what was really taken.
pub async fn settle(store: &Store, name: Dependency, estimate: u64, taken: u64) -> Result<()> {
    if estimate == taken {
        return Ok(());
    }
    let mut tx = store.write().await?;
    let mut spent = lock(&mut tx, name).await?;
    spent.tokens = spent.tokens.saturating_sub(estimate).saturating_add(taken);
    save(&mut tx, name, &spent).await?;
    tx.commit().await
}

/// Of today, for people.
pub async fn spent(tx: &mut Tx, name: Dependency) -> Result<Spent> {
    let kept = flags::get(tx, &key(name)).await?.and_then(|v| serde_json::from_value::<Spent>(v).ok());
    let day = clock::now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
    Ok(kept.filter(|s| s.day == day).unwrap_or(Spent { day, tokens: 0 }))
}

/// Replicas count into the same row.
async fn lock(tx: &mut Tx, name: Dependency) -> Result<Spent> {
    tx.lock("llm.budget").await?;
    spent(tx, name).await
}

async fn save(tx: &mut Tx, name: Dependency, spent: &Spent) -> Result<()> {
    let value = serde_json::to_value(spent).expect("a string and a number serialise");
    flags::set(tx, &key(name), &value).await
}

fn key(name: Dependency) -> String {
    format!("llm.tokens.{name}")
}
