//! Faithful fakes of what cannot be had for a test: each is an HTTP server on a port of its own, checks requests as strictly as
//! the real one, and records what it was sent.

pub mod pagerduty;
pub mod slack;
pub mod telegram;

use std::{collections::VecDeque, net::TcpListener};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use serde_json::Value;

/// A server that answers by one function. Dropping it stops it.
pub struct Server {
    pub url: String,
    handle: ServerHandle,
}

/// What a fake answers: a status, headers, a body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, headers: vec![("content-type", "application/json".into())], body: body.to_string() }
    }
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned() }
    }
    pub fn with(mut self, header: &'static str, value: impl ToString) -> Self {
        self.headers.push((header, value.to_string()));
        self
    }
}

/// One request as the fake got it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub authorization: String,
    pub content_type: String,
    pub body: String,
}

impl Request {
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok().filter(|_| self.content_type.starts_with("application/json"))
    }
}

/// Serves `answer` on a free loopback port.
pub fn serve<F, Fut>(answer: F) -> Server
where
    F: Fn(Request) -> Fut + Clone + Send + 'static,
    Fut: std::future::Future<Output = Answer> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let factory = move || {
        let answer = answer.clone();
        let handler = move |request: HttpRequest, body: web::Bytes| {
            let answer = answer.clone();
            async move { respond(answer(read(&request, &body)).await) }
        };
        App::new().app_data(web::PayloadConfig::new(4 << 20)).default_service(web::to(handler))
    };
    let server = HttpServer::new(factory)
        .workers(1)
        .disable_signals()
        .shutdown_timeout(0)
        .listen(listener)
        .expect("the listener is ours")
        .run();
    let handle = server.handle();
    tokio::spawn(server);
    Server { url, handle }
}

fn read(request: &HttpRequest, body: &web::Bytes) -> Request {
    let header =
        |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    Request {
        method: request.method().to_string(),
        path: request.path().to_owned(),
        query: request.query_string().to_owned(),
        authorization: header("authorization"),
        content_type: header("content-type"),
        body: String::from_utf8_lossy(body).into_owned(),
    }
}

fn respond(answer: Answer) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(answer.status).expect("a real status");
    let mut response = HttpResponse::build(status);
    for (name, value) in answer.headers {
        response.insert_header((name, value));
    }
    response.body(answer.body)
}

impl Drop for Server {
    fn drop(&mut self) {
        // The command is sent at once; its end is not waited for.
        drop(self.handle.stop(false));
    }
}

/// Answers to give instead of the right one, in order, to the calls of one method.
#[derive(Default)]
pub struct Faults(VecDeque<(String, Answer)>);

impl Faults {
    pub fn push(&mut self, method: &str, answer: Answer) {
        self.0.push_back((method.to_owned(), answer));
    }
    pub fn take(&mut self, method: &str) -> Option<Answer> {
        let at = self.0.iter().position(|(m, _)| m == method)?;
        self.0.remove(at).map(|(_, answer)| answer)
    }
}
