//! Log lines for a recording from the Elasticsearch or OpenSearch of the settings: masked, bounded, in the order of time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;

use super::bounds::Bounds;
use crate::{
    breaker::Breakers,
    clock,
    config::Settings,
    replay::Lines,
    search::{Line, Logs, MAX_LINES, SearchError, Wanted, elastic::Elastic},
};

/// For one page.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of one slice of time: pages come with the newest line first, and a recording begins with the oldest.
const MOST_AT_ONCE: usize = 20_000;
/// The first slice; later ones are as long as the lines are few.
const SLICE: Duration = Duration::from_secs(60);
const LONGEST_SLICE: Duration = Duration::from_secs(86_400);
const SHORTEST_SLICE: Duration = Duration::from_millis(1);

/// Writes what was logged in this time; what the answers said is missing from them.
pub async fn record(
    settings: &Settings,
    (from, to): (Timestamp, Timestamp),
    file: &mut Lines,
    bounds: &mut Bounds,
) -> anyhow::Result<BTreeSet<String>> {
    let elastic = Elastic::new(&settings.elasticsearch, &Breakers::new(&settings.breaker))?;
    let logs = Logs::over(Arc::new(elastic.patient()));
    let (mut begin, mut slice, mut gaps) = (from, SLICE, BTreeSet::new());
    while begin < to {
        let end = clock::after(begin, slice).min(to);
        let asked = bounds.wait(between(&logs, begin, end, &mut gaps)).await?;
        let asking = || format!("asking Elasticsearch for the log lines from {begin} to {end}");
        let Some(lines) = asked.with_context(asking)? else {
            if slice <= SHORTEST_SLICE {
                bail!("more than {MOST_AT_ONCE} log lines are of {begin} alone");
            }
            slice = (slice / 2).max(SHORTEST_SLICE);
            continue;
        };
        bounds.take(lines.len() as u64)?;
        lines.iter().rev().try_for_each(|line| file.log(line))?;
        if lines.len() < MOST_AT_ONCE / 4 {
            slice = (slice * 2).min(LONGEST_SLICE);
        }
        begin = end;
    }
    Ok(gaps)
}

/// The lines of a slice, the newest first; none if they are too many.
async fn between(
    logs: &Logs,
    from: Timestamp,
    to: Timestamp,
    gaps: &mut BTreeSet<String>,
) -> anyhow::Result<Option<Vec<Line>>> {
    let mut wanted = Wanted { limit: MAX_LINES, ..Wanted::between(from, to) };
    let mut lines = Vec::new();
    loop {
        let page = logs.lines(&wanted, PATIENCE).await.map_err(|e: SearchError| anyhow!("{e}"))?;
        lines.extend(page.lines);
        gaps.extend(page.gaps.iter().map(|gap| gap.to_string()));
        if lines.len() > MOST_AT_ONCE {
            return Ok(None);
        }
        match page.next {
            Some(next) => wanted.cursor = Some(next),
            None => return Ok(Some(lines)),
        }
    }
}
