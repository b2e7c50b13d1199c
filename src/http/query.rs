//! Reads query strings and path parts, and says what is wrong with them; what all lists have in common.

use std::str::FromStr;

use actix_web::{HttpRequest, web};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    State,
    problem::{Problem, Result},
};
use crate::store::{Page, Tx, page::MAX_LIMIT};

/// What every list takes beside its own filter.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// At most 1,000; 100 if absent.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The names of [`Paging`]'s parameters.
const PAGING: [&str; 2] = ["limit", "cursor"];
const DEFAULT_LIMIT: i64 = 100;

/// For lists that take nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoFilter {}

/// The page of a list that was asked for.
pub struct Wanted {
    limit: i64,
    cursor: Option<String>,
}

/// A list's own filter, and the page that is wanted of it; unknown parameters and bad values are refused by name.
pub fn list<F: DeserializeOwned>(request: &HttpRequest) -> Result<(F, Wanted)> {
    let pairs = request.query_string().split('&');
    let (paging, filter): (Vec<&str>, Vec<&str>) =
        pairs.partition(|pair| pair.split('=').next().is_some_and(|name| PAGING.contains(&name)));
    let filter = read(&filter.join("&"), " beside limit and cursor")?;
    let Paging { limit, cursor } = read(&paging.join("&"), "")?;
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit if (1..=MAX_LIMIT).contains(&limit) => Ok((filter, Wanted { limit, cursor })),
        limit => Err(Problem::bad_request(format!("limit {limit} is not between 1 and {MAX_LIMIT}"))),
    }
}

impl Wanted {
    /// The limit, and the cursor as it was given: for lists that do not come from the store.
    pub fn parts(self) -> (i64, Option<String>) {
        (self.limit, self.cursor)
    }

    /// Answers `{"items": […], "next": …}` with what `page` reads: it gets the limit, and the cursor as the list gives it out.
    pub async fn answer<T, C: FromStr>(
        self,
        state: &State,
        page: impl AsyncFnOnce(&mut Tx, i64, Option<C>) -> Result<Page<T>>,
    ) -> Result<web::Json<Page<T>>> {
        let cursor = self.cursor.map(|text| text.parse().map_err(|_| bad_cursor())).transpose()?;
        let mut tx = state.deps.store.read().await?;
        page(&mut tx, self.limit, cursor).await.map(web::Json)
    }
}

/// A cursor that is the id of the last item: anything but a UUID was not given out by us.
pub struct Id(String);

impl FromStr for Id {
    type Err = uuid::Error;
    fn from_str(text: &str) -> std::result::Result<Self, uuid::Error> {
        uuid::Uuid::parse_str(text).map(|_| Self(text.to_owned()))
    }
}

impl std::ops::Deref for Id {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// The query string as `T`; unknown parameters and bad values are refused by name.
pub fn parse<T: DeserializeOwned>(request: &HttpRequest) -> Result<T> {
    read(request.query_string(), "")
}

/// `known` is said of a parameter that `T` does not know.
fn read<T: DeserializeOwned>(text: &str, known: &str) -> Result<T> {
    web::Query::<T>::from_query(text).map(web::Query::into_inner).map_err(|e| {
        let reason = match e {
            actix_web::error::QueryPayloadError::Deserialize(e) => e.to_string(),
            other => other.to_string(),
        };
        let known = if reason.starts_with("unknown field") { known } else { "" };
        Problem::bad_request(format!("the query string: {reason}{known}"))
    })
}

/// An optional word of an enum.
pub fn word<T: std::str::FromStr<Err = String>>(name: &str, text: Option<&str>) -> Result<Option<T>> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|e| Problem::bad_request(format!("{name}: {e}")))
}

pub fn bad_cursor() -> Problem {
    Problem::bad_request("cursor is not one of this list; take it from next of the page before")
}

pub fn path_config() -> web::PathConfig {
    web::PathConfig::default().error_handler(|_, _| Problem::bad_request("the path cannot be read").into())
}
