//! Lists by keyset: a page and where the next one begins.

use serde::Serialize;

/// The most that one page holds.
pub const MAX_LIMIT: i64 = 1000;

/// `{"items": […], "next": cursor or null}`.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Pass it back as `cursor`; null on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Takes `limit + 1` rows that were asked for and keeps `limit` of them; `key` makes the cursor of the last one kept.
    pub(super) fn of(mut items: Vec<T>, limit: i64, key: impl Fn(&T) -> String) -> Self {
        let more = items.len() as i64 > limit;
        items.truncate(limit as usize);
        let next = if more { items.last().map(key) } else { None };
        Self { items, next }
    }
}

/// Keeps a limit within 1..=[`MAX_LIMIT`].
pub(super) fn clamp(limit: i64) -> i64 {
    limit.clamp(1, MAX_LIMIT)
}
