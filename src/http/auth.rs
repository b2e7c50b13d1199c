//! Who is calling: API tokens with roles for people and programs, per-source credentials for what sends alerts.

use std::{
    collections::HashMap,
    future::Future,
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    web,
};

use super::{
    State,
    doors::{Knock, bearer},
    problem::{Problem, Result},
};
use crate::{
    model::{Actor, Role},
    store::{Store, tokens},
};

/// A token that was looked up is believed for so long: another replica may have revoked it.
const BELIEVED: Duration = Duration::from_secs(5);
const MOST_REMEMBERED: usize = 1024;
const MOST_WATCHED: usize = 10_000;
const WINDOW: Duration = Duration::from_secs(60);

/// Extractor: a caller whose token has at least the role `R`; anybody else is refused before the handler is entered.
pub struct As<R>(pub Actor, PhantomData<R>);

/// A role as a type.
pub trait Needs {
    const ROLE: Role;
}
macro_rules! needs {
    ($($name:ident),+) => { $(
        pub struct $name;
        impl Needs for $name {
            const ROLE: Role = Role::$name;
        }
    )+ };
}
needs!(Viewer, Operator, Admin);

impl<R: Needs + 'static> FromRequest for As<R> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self>>>>;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(Self(authorise(&request, R::ROLE).await?, PhantomData)) })
    }
}

/// The holder of a token that allows what `needed` guards; 401 without a valid one, 403 with too small a one.
async fn authorise(request: &HttpRequest, needed: Role) -> Result<Actor> {
    let state = request.app_data::<web::Data<State>>().expect("the server shares its state");
    let token = token(state, request).await?;
    if !token.role.allows(needed) {
        let detail = format!("the token {} has the role {}; this needs {needed}", token.name, token.role);
        return Err(Problem::forbidden(detail).closing());
    }
    Ok(Actor::token(&token.name))
}

/// Lets a request in that may send in the name of `source`: by the source's own credentials, by a token with the role
/// `intake` or `admin`, or, from this host and while the source has no credentials, without.
pub async fn admit(state: &State, request: &HttpRequest, source: &str) -> Result<()> {
    let doors = state.doors.get();
    let authorization = authorization(request);
    match doors.knock(source, authorization) {
        Knock::Known => return Ok(()),
        Knock::Unset if authorization.is_empty() && doors.is_local(request.headers()) => return Ok(()),
        Knock::Wrong | Knock::Unset => {}
    }
    match token(state, request).await {
        Ok(token) if token.role.allows(Role::Intake) => Ok(()),
        Ok(token) => {
            let detail = format!("the token {} has the role {}; this needs intake", token.name, token.role);
            Err(Problem::forbidden(detail).closing())
        }
        // Alertmanager does not come again after 429 until the group changes.
        Err(problem) if problem.status() == StatusCode::TOO_MANY_REQUESTS => Err(unauthorised()),
        Err(problem) => Err(problem),
    }
}

/// Lets a probe in: anybody on this host or with `http.metrics_public`, else whoever may look.
pub async fn admit_probe(state: &State, request: &HttpRequest) -> Result<()> {
    if state.settings.http.metrics_public || state.doors.get().is_local(request.headers()) {
        return Ok(());
    }
    authorise(request, Role::Viewer).await.map(drop)
}

fn authorization(request: &HttpRequest) -> &[u8] {
    request.headers().get(header::AUTHORIZATION).map_or(b"", HeaderValue::as_bytes)
}

async fn token(state: &State, request: &HttpRequest) -> Result<tokens::Token> {
    let Some(secret) = bearer(authorization(request)).and_then(|s| std::str::from_utf8(s).ok()) else {
        return Err(unauthorised());
    };
    if let Some(token) = state.logins.remembered(secret) {
        return Ok(token);
    }
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |a| a.ip());
    state.logins.may_try(peer)?;
    match find(&state.deps.store, secret).await? {
        Some(token) => {
            state.logins.remember(secret, &token);
            Ok(token)
        }
        None => {
            state.logins.failed(peer);
            Err(unauthorised())
        }
    }
}

async fn find(store: &Store, secret: &str) -> Result<Option<tokens::Token>> {
    let mut tx = store.read_few().await?;
    Ok(tokens::find(&mut tx, secret).await?)
}

fn unauthorised() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "send a valid token: Authorization: Bearer …")
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        .closing()
}

/// What is remembered of authentications, bounded.
pub struct Logins {
    /// By the hash of the secret.
    known: Mutex<HashMap<String, (tokens::Token, Instant)>>,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    most_failures: u32,
}

impl Logins {
    pub fn new(most_failures: u32) -> Self {
        Self { known: Mutex::default(), failures: Mutex::default(), most_failures }
    }

    fn remembered(&self, secret: &str) -> Option<tokens::Token> {
        let known = lock(&self.known);
        let (token, at) = known.get(&tokens::hash(secret))?;
        (at.elapsed() < BELIEVED).then(|| token.clone())
    }

    fn remember(&self, secret: &str, token: &tokens::Token) {
        let mut known = lock(&self.known);
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(tokens::hash(secret), (token.clone(), Instant::now()));
    }

    /// To be called when a token was revoked.
    pub fn forget(&self, name: &str) {
        lock(&self.known).retain(|_, (token, _)| token.name != name);
    }

    /// 429 for an address that has failed too often within a minute.
    fn may_try(&self, peer: IpAddr) -> Result<()> {
        match lock(&self.failures).get(&peer) {
            Some((count, since)) if *count >= self.most_failures && since.elapsed() < WINDOW => {
                let wait = (WINDOW - since.elapsed()).as_secs() + 1;
                let detail = "too many failed authentications from this address";
                Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
                    .with_header(header::RETRY_AFTER, HeaderValue::from(wait))
                    .closing())
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, peer: IpAddr) {
        crate::metrics::AUTH_FAILURES.inc();
        let mut failures = lock(&self.failures);
        if failures.len() >= MOST_WATCHED {
            failures.retain(|_, (_, since)| since.elapsed() < WINDOW);
            if failures.len() >= MOST_WATCHED {
                failures.clear();
            }
        }
        let (count, since) = failures.entry(peer).or_insert((0, Instant::now()));
        if since.elapsed() >= WINDOW {
            (*count, *since) = (0, Instant::now());
        }
        *count += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
