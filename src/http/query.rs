//! Reads query strings and path parts, and says what is wrong with them.

use actix_web::{HttpRequest, web};
use serde::de::DeserializeOwned;

use super::problem::{Problem, Result};
use crate::store::page::MAX_LIMIT;

/// The query string as `T`; unknown parameters and bad values are refused by name.
pub fn parse<T: DeserializeOwned>(request: &HttpRequest) -> Result<T> {
    web::Query::<T>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|e| Problem::bad_request(format!("the query string: {}", reason(&e))))
}

fn reason(error: &actix_web::error::QueryPayloadError) -> String {
    match error {
        actix_web::error::QueryPayloadError::Deserialize(e) => e.to_string(),
        other => other.to_string(),
    }
}

pub const DEFAULT_LIMIT: i64 = 100;

/// A page's size: 100 unless it is asked for otherwise, at most 1,000.
pub fn limit(given: Option<i64>) -> Result<i64> {
    match given.unwrap_or(DEFAULT_LIMIT) {
        n if (1..=MAX_LIMIT).contains(&n) => Ok(n),
        n => Err(Problem::bad_request(format!("limit {n} is not between 1 and {MAX_LIMIT}"))),
    }
}

/// An optional word of an enum.
pub fn word<T: std::str::FromStr<Err = String>>(name: &str, text: Option<&str>) -> Result<Option<T>> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|e| Problem::bad_request(format!("{name}: {e}")))
}

/// A cursor that is an id: anything else was not given out by us.
pub fn id_cursor(cursor: Option<&str>) -> Result<Option<&str>> {
    match cursor {
        Some(text) if uuid::Uuid::parse_str(text).is_err() => Err(bad_cursor()),
        cursor => Ok(cursor),
    }
}

pub fn bad_cursor() -> Problem {
    Problem::bad_request("cursor is not one of this list; take it from next of the page before")
}

pub fn path_config() -> web::PathConfig {
    web::PathConfig::default().error_handler(|_, _| Problem::bad_request("the path cannot be read").into())
}
