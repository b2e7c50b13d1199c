//! Log search.

use std::time::Duration;

use actix_web::{HttpRequest, get, web};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    http::{
        State,
        auth::{As, Viewer},
        problem::{Problem, ProblemDocument, Result},
        query,
    },
    search::{Line, SearchError, Wanted},
};

/// A person waits for it.
const WITHIN: Duration = Duration::from_secs(10);
/// Without `from`, so far back.
const LOOK_BACK: Duration = Duration::from_secs(3600);

/// Which lines to list: all that is given must fit.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    service: Option<String>,
    /// An hour ago if absent.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Now if absent; not included.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Words that all occur in the message; no character is special.
    text: Option<String>,
    /// `trace`, `debug`, `info`, `warn`, `error` or `fatal`: this level and worse.
    level: Option<String>,
    /// A trace id.
    trace: Option<String>,
}

/// A page of log lines.
#[derive(Serialize, utoipa::ToSchema)]
struct LogPage {
    items: Vec<Line>,
    /// Pass it back as `cursor`; null on the last page.
    next: Option<String>,
    /// What is missing in it although it was asked for: parts that did not answer, lines that were not kept.
    gaps: Vec<String>,
}

/// Log lines, the newest first; secrets are masked. 503 if there is nothing to search, or it does not answer; the detail says why.
#[utoipa::path(tag = "logs", params(query::Paging, Filter), security(("token" = ["viewer"])),
    responses((status = 200, body = LogPage), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/logs")]
pub async fn search(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<LogPage>> {
    let (filter, page) = query::list::<Filter>(&request)?;
    let (limit, cursor) = page.parts();
    let to = filter.to.unwrap_or_else(|| clock::after(clock::now(), Duration::from_micros(1)));
    let wanted = Wanted {
        service: filter.service.filter(|s| !s.is_empty()),
        from: filter.from.unwrap_or_else(|| clock::before(to, LOOK_BACK)),
        to,
        text: filter.text.unwrap_or_default(),
        level: query::word("level", filter.level.as_deref())?,
        trace: filter.trace.filter(|t| !t.is_empty()),
        limit: limit as usize,
        cursor,
    };
    if wanted.from >= wanted.to {
        return Err(Problem::bad_request("from must be before to"));
    }
    if wanted.text.len() > 1000 {
        return Err(Problem::bad_request("text is longer than 1000 bytes"));
    }
    let found = state.deps.logs.lines(&wanted, WITHIN).await.map_err(|e| match e {
        SearchError::Cursor => query::bad_cursor(),
        SearchError::Unavailable(why) => Problem::unavailable(format!("the logs cannot be searched: {why}")),
    })?;
    let gaps = found.gaps.iter().map(ToString::to_string).collect();
    Ok(web::Json(LogPage { items: found.lines, next: found.next, gaps }))
}
