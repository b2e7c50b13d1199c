//! API tokens: only their SHA-256 is stored; a token is 32 random bytes, so nothing slower is needed.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Result, Tx, exec, row, sql};
use crate::model::{Role, sha256_hex};

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Token {
    pub name: String,
    pub role: Role,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct Row {
    name: String,
    role: String,
    created_at: i64,
    revoked_at: Option<i64>,
}

impl Row {
    fn model(self) -> Result<Token> {
        Ok(Token {
            role: row::word(&self.role)?,
            created_at: row::time(self.created_at),
            revoked_at: self.revoked_at.map(row::time),
            name: self.name,
        })
    }
}

/// 64 hex digits.
pub fn hash(secret: &str) -> String {
    sha256_hex(secret.as_bytes())
}

/// Fails with a conflict (see [`super::Error::is_conflict`]) if the name is taken.
pub async fn insert(tx: &mut Tx, name: &str, role: Role, secret: &str) -> Result<()> {
    exec!(tx, |c| sqlx::query("INSERT INTO tokens (name, role, hash, created_at) VALUES ($1, $2, $3, $4)")
        .bind(name)
        .bind(role.as_str())
        .bind(hash(secret))
        .bind(row::micros(crate::clock::now())))?;
    Ok(())
}

/// The token that this secret belongs to, unless it was revoked. The look-up is by hash, so its time tells nothing.
pub async fn find(tx: &mut Tx, secret: &str) -> Result<Option<Token>> {
    let row: Option<Row> = sql!(tx, |c| sqlx::query_as(
        "SELECT name, role, created_at, revoked_at FROM tokens WHERE hash = $1 AND revoked_at IS NULL"
    )
    .bind(hash(secret))
    .fetch_optional(c))?;
    row.map(Row::model).transpose()
}

pub async fn list(tx: &mut Tx) -> Result<Vec<Token>> {
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(
        "SELECT name, role, created_at, revoked_at FROM tokens ORDER BY created_at, name LIMIT 1000"
    )
    .fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// False if there is none of that name, or it was revoked before.
pub async fn revoke(tx: &mut Tx, name: &str) -> Result<bool> {
    let changed = exec!(tx, |c| sqlx::query(
        "UPDATE tokens SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL"
    )
    .bind(name)
    .bind(row::micros(crate::clock::now())))?;
    Ok(changed == 1)
}
