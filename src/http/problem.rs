//! Errors as clients see them: RFC 9457 `application/problem+json`, safe to show, with an id that the log has too.

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};
use serde::Serialize;

use crate::{
    admission::{self, Overloaded},
    intake::{alert::BadPayload, commit::NotCommitted},
    playbook::Refusal,
    steer, store,
};

/// An error as it is answered; a pointer, because errors are rare and results should stay small.
#[derive(Clone, Debug)]
pub struct Problem(Box<ProblemDocument>);

/// `{"type":"about:blank","title":"Bad Request","status":400,"detail":"…","instance":"urn:uuid:…"}`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ProblemDocument {
    /// `about:blank`: the title says it all.
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "number")]
    #[schema(value_type = u16)]
    status: StatusCode,
    /// What is wrong, and what would be right.
    detail: String,
    /// This one occurrence; the log of the service has the same id.
    instance: String,
    /// Members of the answer to telemetry: `accepted`, `rejected`, `errors` …
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    more: Option<serde_json::Value>,
    #[serde(skip)]
    #[schema(ignore)]
    header: Option<(HeaderName, HeaderValue)>,
    /// The rest of the request is not wanted.
    #[serde(skip)]
    #[schema(ignore)]
    close: bool,
}

fn number<S: serde::Serializer>(status: &StatusCode, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u16(status.as_u16())
}

pub type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Box::new(ProblemDocument {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status,
            detail: detail.into(),
            instance: format!("urn:uuid:{}", crate::ids::new()),
            more: None,
            header: None,
            close: false,
        }))
    }
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with_header(header::RETRY_AFTER, RETRY_AFTER)
    }
    /// Nothing about the cause: that is in the log, beside the same `instance`.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        let problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "this failed here; the log says why");
        tracing::error!(instance = problem.0.instance, %cause, "a request failed");
        problem
    }
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }
    pub fn with_members(mut self, members: serde_json::Value) -> Self {
        self.0.more = Some(members);
        self
    }
    pub fn status(&self) -> StatusCode {
        self.0.status
    }
    /// Ends the connection after the answer.
    pub fn closing(mut self) -> Self {
        self.0.close = true;
        self
    }
    pub fn response(&self) -> HttpResponse {
        let mut builder = HttpResponse::build(self.0.status);
        if let Some((name, value)) = &self.0.header {
            builder.insert_header((name.clone(), value.clone()));
        }
        if self.0.close {
            builder.force_close();
        }
        let body = serde_json::to_string(&self.0).expect("a problem holds only strings and numbers");
        builder.insert_header((header::CONTENT_TYPE, CONTENT_TYPE)).body(body)
    }
}

/// Seconds after which it is worth asking again, as an unavailable service says it.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
pub const CONTENT_TYPE: &str = "application/problem+json";

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0.status.as_u16(), self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }
    fn error_response(&self) -> HttpResponse {
        self.response()
    }
}

impl From<BadPayload> for Problem {
    fn from(bad: BadPayload) -> Self {
        Self::bad_request(bad.0)
    }
}

/// Always 503: Alertmanager tries that again, and 429 it does not.
impl From<NotCommitted> for Problem {
    fn from(why: NotCommitted) -> Self {
        Self::unavailable(format!("{why}; nothing was taken, send it again"))
    }
}

/// 503 too, with the time after which it may be over.
impl From<Overloaded> for Problem {
    fn from(why: Overloaded) -> Self {
        Self::unavailable(format!("{why}; nothing was taken, send it again"))
            .with_header(header::RETRY_AFTER, HeaderValue::from(admission::COME_AGAIN.as_secs()))
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            error if error.is_unavailable() => {
                tracing::error!(%error, "the store did not answer a request");
                Self::unavailable("the store does not answer; try again")
            }
            error => Self::internal(&error),
        }
    }
}

impl From<steer::Error> for Problem {
    fn from(error: steer::Error) -> Self {
        match error {
            steer::Error::NotFound(_) => Self::not_found(error.to_string()),
            steer::Error::Conflict(_) => Self::conflict(error.to_string()),
            steer::Error::Refused { clause, why } => {
                Self::conflict(why.to_string()).with_members(serde_json::json!({ "clause": clause }))
            }
            steer::Error::Store(error) => error.into(),
        }
    }
}

/// What was asked for is well written and cannot be: there is no such playbook, it is not allowed, a parameter does not fit.
impl From<Refusal> for Problem {
    fn from(Refusal { clause, why }: Refusal) -> Self {
        let status = match clause.as_str() {
            "playbooks.dir" | "incident" => StatusCode::NOT_FOUND,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, why.to_string()).with_members(serde_json::json!({ "clause": clause }))
    }
}
