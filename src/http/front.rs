//! What every request passes before its handler: names and origins are checked, panics caught, errors put into form.

use std::panic::AssertUnwindSafe;

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ResourceDef, ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
    middleware::Next,
    web,
};
use futures_util::FutureExt;
use utoipa::openapi::{OpenApi, PathItem};

use super::{
    State,
    problem::{CONTENT_TYPE, Problem},
};
use crate::metrics;

type Answer = Result<ServiceResponse<BoxBody>, actix_web::Error>;

/// The middleware around everything.
pub async fn front(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Answer {
    let state = request.app_data::<web::Data<State>>().expect("the server shares its state");
    if let Err(problem) = state.doors.get().check(request.headers()) {
        return Ok(finish(request.into_response(problem.response())));
    }
    // PostgreSQL keeps no NUL: a name or a filter with one names nothing.
    if request.uri().path_and_query().is_some_and(|path| path.as_str().contains("%00")) {
        let problem = Problem::bad_request("the path and the query string must not hold NUL (%00)");
        return Ok(finish(request.into_response(problem.closing().response())));
    }
    // The request must not be cloned here: routing needs the only reference to it.
    match AssertUnwindSafe(next.call(request)).catch_unwind().await {
        Ok(Ok(response)) => Ok(finish(in_form(response.map_into_boxed_body()))),
        Ok(Err(error)) => Err(refusal(error.as_response_error().status_code()).into()),
        Err(_) => {
            metrics::HTTP_PANICS.inc();
            Err(Problem::internal(&"the handler panicked").closing().into())
        }
    }
}

fn finish(mut response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let class = match response.status().as_u16() {
        ..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    metrics::HTTP_RESPONSES.with_label_values(&[class]).inc();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Whatever error actix itself answers becomes a problem, too.
fn in_form(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let status = response.status();
    let typed = response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v == CONTENT_TYPE);
    if typed || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (request, _) = response.into_parts();
    ServiceResponse::new(request, refusal(status).response())
}

fn refusal(status: StatusCode) -> Problem {
    let detail = status.canonical_reason().unwrap_or("this was refused").to_lowercase();
    Problem::new(status, detail).closing()
}

/// The routes that exist, to tell a wrong method from a wrong path.
pub struct Routes(Vec<(ResourceDef, Vec<Method>)>);

impl Routes {
    pub fn new(openapi: &OpenApi) -> Self {
        let routes = openapi.paths.paths.iter();
        Self(routes.map(|(path, item)| (ResourceDef::new(path.as_str()), methods(item))).collect())
    }

    fn methods(&self, path: &str) -> Vec<&str> {
        let fitting = self.0.iter().filter(|(route, _)| route.is_match(path));
        let mut methods: Vec<&str> =
            fitting.flat_map(|(_, methods)| methods.iter().map(Method::as_str)).collect();
        methods.sort_unstable();
        methods.dedup();
        methods
    }
}

fn methods(item: &PathItem) -> Vec<Method> {
    [(&item.get, Method::GET), (&item.post, Method::POST), (&item.delete, Method::DELETE)]
        .into_iter()
        .filter_map(|(operation, method)| operation.is_some().then_some(method))
        .collect()
}

/// Answers what no handler takes: 405 with the right methods, or 404.
pub async fn nowhere(request: HttpRequest, routes: web::Data<Routes>) -> HttpResponse {
    let methods = routes.methods(request.path());
    if methods.is_empty() {
        return Problem::not_found("there is nothing at this path; /api/openapi.json lists what there is")
            .closing()
            .response();
    }
    let allowed = methods.join(", ");
    let detail = format!("this path takes {allowed}, not {}", request.method());
    let allow = HeaderValue::from_str(&allowed).expect("methods are ASCII");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        .with_header(header::ALLOW, allow)
        .closing()
        .response()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use actix_web::{App, body, middleware::from_fn, test};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        act, bus::Embedded, config::Settings, http::HttpDeps, http_client, intake::commit::Committer, notify,
        playbook::Registry, steps::Tools, store::Store,
    };

    async fn panics() -> HttpResponse {
        panic!("with a secret in it")
    }

    async fn state(dir: &tempfile::TempDir) -> web::Data<State> {
        let store = Store::open("", dir.path()).await.expect("a store");
        let settings = Arc::new(Settings::default());
        let (committer, _) =
            Committer::start(store.clone(), 1, Duration::from_secs(1), CancellationToken::new());
        let tools = Tools {
            registry: Arc::new(Registry::open(&settings)),
            http: http_client::new(),
            prometheus: settings.prometheus.clone(),
            data_dir: dir.path().to_owned(),
        };
        web::Data::new(State::new(
            HttpDeps {
                slack: None,
                act: act::Deps { store: store.clone(), tools: Arc::new(tools) },
                bus: Arc::new(Embedded::new(&settings.detect.bus)),
                logs: Default::default(),
                outbox: Arc::new(
                    notify::Deps::new(store.clone(), &settings).expect("the defaults are right"),
                ),
                store,
                admission: Arc::default(),
                committer,
                settings,
                reports: Default::default(),
                ready: Arc::new(|| Ok(())),
                stop: CancellationToken::new(),
            },
            "127.0.0.1:1".parse().expect("an address"),
        ))
    }

    #[actix_web::test]
    async fn a_panic_is_a_problem_without_details() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let app =
            App::new().app_data(state(&dir).await).wrap(from_fn(front)).route("/", web::get().to(panics));
        let app = test::init_service(app).await;
        let request = test::TestRequest::get().uri("/").insert_header(("host", "localhost")).to_request();
        let error = test::try_call_service(&app, request).await.expect_err("an error that actix answers");
        let answer = error.error_response();
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.headers().get("content-type").map(|v| v.as_bytes()), Some(CONTENT_TYPE.as_bytes()));
        let text = body::to_bytes(answer.into_body()).await.expect("a body");
        let text = String::from_utf8(text.to_vec()).expect("UTF-8");
        assert!(text.contains("urn:uuid:") && !text.contains("secret"), "{text}");
    }
}
