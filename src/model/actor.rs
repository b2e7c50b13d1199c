//! Who did it: every decision and every audit row names one.

use serde::{Deserialize, Serialize};

super::words!(
    /// What a token may do; a later role may do all that an earlier one may, except `Intake`, which only sends.
    Role {
        Intake = "intake",
        Viewer = "viewer",
        Operator = "operator",
        Admin = "admin",
    }
);

impl Role {
    /// True if a holder of `self` may use what `needed` guards.
    pub fn allows(self, needed: Role) -> bool {
        match (self, needed) {
            (Role::Admin, _) => true,
            (Role::Intake, n) => n == Role::Intake,
            (_, Role::Intake) => false,
            (have, need) => have >= need,
        }
    }
}

/// A person or a part of the program, with the way it came in: `telegram:42 (@ann)`, `token:ci`, `policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Actor {
    /// Where it came in: `token`, `telegram`, `slack`, `aiops`.
    pub via: String,
    /// Its identity there: a token's name, a numeric user id.
    pub id: String,
    /// What people call it; shown, never trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Actor {
    /// The program itself, in the name of one of its parts.
    pub fn aiops(part: &str) -> Self {
        Self { via: "aiops".into(), id: part.into(), name: None }
    }
    /// The holder of an API token.
    pub fn token(name: &str) -> Self {
        Self { via: "token".into(), id: name.into(), name: None }
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({}:{})", self.via, self.id),
            None => write!(f, "{}:{}", self.via, self.id),
        }
    }
}
