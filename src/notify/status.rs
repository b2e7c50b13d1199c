//! How each channel stands: when it last told somebody, what waits for it, what it could not tell, and why.

use jiff::Timestamp;
use serde::Serialize;

use super::{ChannelKind, Deps};
use crate::{
    clock, redact,
    store::{self, Tx, messages},
};

/// A provider's error may be a whole page.
const LONGEST_ERROR: usize = 300;

/// A configured channel as it stands now.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ChannelStatus {
    pub channel: ChannelKind,
    /// When a message was last posted, edited, or found to be right already.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_delivered_at: Option<Timestamp>,
    /// Messages that are owed to it and not given up.
    pub waiting: i64,
    /// For how long the oldest of them has been owed; 0 if none waits.
    pub oldest_waiting_seconds: u64,
    /// Messages that it could not be told, and has not been told since.
    pub dead_letters: i64,
    /// Its provider asked this process to leave it alone until then.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub paused_until: Option<Timestamp>,
    /// Why the newest of those that wait or are dead was not delivered, masked; null once all are.
    pub last_error: Option<String>,
}

/// All configured channels, in the order of their declaration.
pub async fn status(deps: &Deps, tx: &mut Tx, now: Timestamp) -> store::Result<Vec<ChannelStatus>> {
    let mut known = messages::by_channel(tx).await?;
    let all = deps.routes.iter().map(|route| {
        let channel = route.channel.kind();
        let owed = known.remove(channel.as_str()).unwrap_or_default();
        ChannelStatus {
            channel,
            last_delivered_at: owed.delivered_at,
            waiting: owed.waiting,
            oldest_waiting_seconds: owed.due_since.map_or(0, |since| clock::between(since, now).as_secs()),
            dead_letters: owed.unreached,
            paused_until: deps.lanes.paused_until(channel).filter(|until| *until > now),
            last_error: owed
                .last_error
                .map(|text| redact::cut(&redact::mask(&text), LONGEST_ERROR).to_owned()),
        }
    });
    Ok(all.collect())
}
