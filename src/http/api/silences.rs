//! Silences: which alerts nobody wants to be told of for a while.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    clock,
    http::{
        State,
        auth::{As, Operator, Viewer},
        body,
        problem::{Problem, ProblemDocument, Result},
        query,
    },
    model::{Matcher, Matchers, Silence},
    steer,
    store::{Page, silences},
};

/// What is longer is no silence, but a rule that nobody wants.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
const MOST_MATCHERS: usize = 20;
/// Characters of a label's name, a matcher or a reason.
const LONGEST_TEXT: usize = 500;

/// Which silences to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Those that are over, too.
    all: Option<bool>,
}

/// A silence to be made: either `duration` or `until`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSilence {
    /// All must fit; `{label: value}` or `{label: "~regex"}` (anchored).
    matches: BTreeMap<String, String>,
    /// From now on: `2h`, `1d 12h`; at most 30 days.
    duration: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// A sentence for the others; it is shown wherever a message is held back.
    reason: String,
}

impl NewSilence {
    fn matchers(&self) -> Result<Matchers> {
        if self.matches.len() > MOST_MATCHERS {
            return Err(Problem::bad_request(format!("matches: at most {MOST_MATCHERS}")));
        }
        let mut matchers = Matchers::new();
        for (label, text) in &self.matches {
            if label.is_empty() || label.len() > LONGEST_TEXT || text.len() > LONGEST_TEXT {
                let detail = format!("matches: labels and values have at most {LONGEST_TEXT} characters");
                return Err(Problem::bad_request(detail));
            }
            let matcher = Matcher::new(text)
                .map_err(|e| Problem::bad_request(format!("matches.{label}: {text:?}: {e}")))?;
            matchers.insert(label.clone(), matcher);
        }
        if matchers.values().all(|m| m.matches("")) {
            return Err(Problem::bad_request(
                "matches must ask for at least one label, such as {\"service\": \"db\"}; this would silence everything",
            ));
        }
        Ok(matchers)
    }

    fn end(&self, now: Timestamp) -> Result<Timestamp> {
        let too_long = || Problem::bad_request("a silence lasts at most 30 days");
        let end = match (&self.duration, self.until) {
            (Some(text), None) => {
                let duration = humantime::parse_duration(text).map_err(|e| {
                    Problem::bad_request(format!("duration {text:?}: {e}; write it as 2h or 90m"))
                })?;
                if duration > LONGEST {
                    return Err(too_long());
                }
                clock::after(now, duration)
            }
            (None, Some(until)) => until,
            _ => return Err(Problem::bad_request("give either duration or until")),
        };
        if end <= now {
            return Err(Problem::bad_request("a silence must end in the future"));
        }
        if end > clock::after(now, LONGEST) {
            return Err(too_long());
        }
        Ok(end)
    }

    fn reason(&self) -> Result<&str> {
        match self.reason.trim() {
            reason if (1..=LONGEST_TEXT).contains(&reason.len()) => Ok(reason),
            _ => Err(Problem::bad_request(format!(
                "reason: say why, so that others understand, in at most {LONGEST_TEXT} characters"
            ))),
        }
    }
}

/// Silences, the newest first; those that hold now unless all are asked for. Maintenance windows are in the settings.
#[utoipa::path(tag = "silences", params(query::Paging, Filter), security(("token" = ["viewer"])),
    responses((status = 200, body = Page<Silence>), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/silences")]
pub async fn list(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<Page<Silence>>> {
    let (filter, page) = query::list::<Filter>(&request)?;
    let after = (!filter.all.unwrap_or(false)).then(clock::now);
    page.answer(&state, async |tx, limit, cursor: Option<query::Id>| {
        Ok(silences::list(tx, after, limit, cursor.as_deref()).await?)
    })
    .await
}

/// Makes a silence: incidents whose alerts it covers open without a message and without a question until it ends.
#[utoipa::path(tag = "silences", request_body = NewSilence, security(("token" = ["operator"])),
    responses((status = 201, body = Silence), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/silences")]
pub async fn create(
    state: web::Data<State>,
    caller: As<Operator>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    let new: NewSilence = body::required(&state, &request, payload).await?;
    let (matchers, until, reason) = (new.matchers()?, new.end(clock::now())?, new.reason()?);
    let mut tx = state.deps.store.write().await?;
    let made = steer::silence(&mut tx, matchers, until, reason, &caller.0).await?;
    tx.commit().await?;
    Ok(HttpResponse::Created().json(made))
}

/// Ends a silence now; open incidents that it held back are told at once.
#[utoipa::path(tag = "silences", params(("id" = String, Path)), security(("token" = ["operator"])),
    responses((status = 204), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[delete("/api/v1/silences/{id}")]
pub async fn expire(
    state: web::Data<State>,
    caller: As<Operator>,
    id: web::Path<String>,
) -> Result<HttpResponse> {
    let mut tx = state.deps.store.write().await?;
    steer::expire_silence(&mut tx, &id, &caller.0).await?;
    tx.commit().await?;
    Ok(HttpResponse::NoContent().finish())
}
