//! Alerts.

use actix_web::{HttpRequest, get, web};
use serde::Deserialize;

use crate::{
    http::{
        State,
        auth::{As, Viewer},
        problem::{ProblemDocument, Result},
        query,
    },
    model::Alert,
    store::{Error, Page, alerts},
};

/// Which alerts to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// `firing` or `resolved`.
    state: Option<String>,
    incident_id: Option<String>,
    source: Option<String>,
}

/// Alerts, the most recently started first.
#[utoipa::path(tag = "alerts", params(query::Paging, Filter), security(("token" = ["viewer"])),
    responses((status = 200, body = Page<Alert>), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/alerts")]
pub async fn list(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<Page<Alert>>> {
    let (filter, page) = query::list::<Filter>(&request)?;
    let wanted = alerts::Filter {
        state: query::word("state", filter.state.as_deref())?,
        incident_id: filter.incident_id,
        source: filter.source,
    };
    page.answer(&state, async |tx, limit, cursor: Option<String>| {
        match alerts::list(tx, &wanted, limit, cursor.as_deref()).await {
            Err(Error::Damaged(_)) if cursor.is_some() => Err(query::bad_cursor()),
            page => Ok(page?),
        }
    })
    .await
}
