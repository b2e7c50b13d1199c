//! A PagerDuty that takes everything, in process: the far side of the socket, so that what is measured is ours alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// When each service was first told of, and how often anything was.
#[derive(Default)]
pub struct Told {
    pub first: HashMap<u64, Instant>,
    pub calls: u64,
}

pub struct Sink {
    url: String,
    told: Arc<Mutex<Told>>,
}

impl Sink {
    /// Listens on a free port of loopback, in a thread of its own, as long as the process lives.
    pub fn start() -> anyhow::Result<Self> {
        let listener =
            std::net::TcpListener::bind(("127.0.0.1", 0)).context("opening a port for messages")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let told = Arc::<Mutex<Told>>::default();
        let shared = told.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("it was made for this");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(answer(stream, shared.clone()));
                }
            });
        };
        std::thread::Builder::new().name("sink".into()).spawn(serve).context("starting a thread")?;
        Ok(Self { url, told })
    }

    /// The settings of a server that tells this sink of every incident.
    pub fn settings(&self, first_delay: &str) -> serde_json::Value {
        serde_json::json!({ "notify": {
            "first_delay": first_delay,
            "pagerduty": { "routing_key": "0".repeat(32), "api": self.url, "min_severity": "info" },
        } })
    }

    pub fn look<T>(&self, at: impl FnOnce(&Told) -> T) -> T {
        at(&self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{\"status\":\"success\"}";

/// Takes event after event. The moment that counts is the one before the answer leaves.
async fn answer(mut stream: TcpStream, told: Arc<Mutex<Told>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let Some(end) = whole(&buffer) else {
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.calls += 1;
            if let Some(service) = service(&buffer[..end]) {
                told.first.entry(service).or_insert_with(Instant::now);
            }
        }
        buffer.drain(..end);
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

/// The length of the first request, once it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.filter_map(|(_, value)| value.trim().parse().ok()).next().unwrap_or(0);
    (bytes.len() >= end + length).then_some(end + length)
}

/// The number of the service that an event is about: `"source":"svc-00017"`.
fn service(event: &[u8]) -> Option<u64> {
    let name = b"\"source\":\"svc-";
    let at = event.windows(name.len()).position(|w| w == name)? + name.len();
    let digits: Vec<u8> = event[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_its_body_and_names_its_service() {
        let request = b"POST /v2/enqueue HTTP/1.1\r\nContent-Length: 34\r\n\r\n{\"payload\":{\"source\":\"svc-00017\"}}POST";
        let body = request.len() - 4;
        assert_eq!(whole(&request[..body - 1]), None);
        assert_eq!(whole(request), Some(body));
        assert_eq!(service(request), Some(17));
        assert_eq!(service(b"{}"), None);
    }
}
