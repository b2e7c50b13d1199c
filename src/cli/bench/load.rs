//! The load generator: HTTP/1.1 over kept connections, requests made ready beforehand, one thread. It shares the cores with the
//! server that it measures, so it must cost little; it says how much.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, mpsc},
};

use super::{
    histogram::{Histogram, Quantiles},
    process,
    target::Target,
};

/// What one connection sends.
pub trait Requests {
    /// The next request, whole, and how many items (alerts, lines, samples) it brings.
    /// `due` is when it should leave.
    fn next(&mut self, due: Instant) -> (&[u8], u64);
}

/// Makes the requests of one connection, by its number.
pub type MakeRequests = Box<dyn Fn(usize) -> Box<dyn Requests> + Send>;

#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub connections: usize,
    /// Requests a second, sent when they are due however slow the answers are; latencies count from there. None: each connection
    /// sends when it has its answer.
    pub rate: Option<f64>,
    /// Before anything is counted.
    pub warm_up: Duration,
    pub lasts: Duration,
    /// Whose processor time is to be measured.
    pub pid: Option<u32>,
}

/// What came of it. `sent` and `accepted` count everything, `counted` what was accepted in the measured time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    pub seconds: f64,
    pub sent: u64,
    pub accepted: u64,
    pub counted: u64,
    pub per_second: f64,
    pub latency: Quantiles,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that broke, or could not be made.
    pub broken: u64,
    /// Requests without an answer at the end.
    pub unanswered: u64,
    /// Requests that were due and not sent, every connection being busy.
    pub unsent: u64,
    pub cost: Cost,
}

/// Processor time in µs for each accepted item, and what the machine did beside.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    pub server_us: Option<f64>,
    /// By the names of the server's threads.
    pub server_threads_us: BTreeMap<String, f64>,
    pub generator_us: f64,
    /// Cores that anything else kept busy.
    pub others_cores: f64,
    pub memory: Option<process::Memory>,
}

/// Loads the target and returns when every answer has come, or ten seconds after the last request.
pub async fn run(plan: Plan, make: MakeRequests) -> anyhow::Result<Outcome> {
    let begins = Instant::now() + plan.warm_up;
    let ends = begins + plan.lasts;
    let (pid, (done, outcome)) = (plan.pid, tokio::sync::oneshot::channel());
    let generator = std::thread::Builder::new().name("load".into()).spawn(move || {
        let _ = done.send(generate(plan, make, begins, ends));
    });
    generator.context("starting the generator's thread")?;
    let meter = async {
        tokio::time::sleep_until(begins.into()).await;
        let before = Meter::read(pid);
        tokio::time::sleep_until(ends.into()).await;
        (before, Meter::read(pid))
    };
    let (outcome, (before, after)) = tokio::join!(outcome, meter);
    let mut outcome = outcome.context("the generator's thread ended badly")??;
    outcome.cost = before.until(&after, outcome.counted);
    outcome.cost.memory = pid.and_then(process::memory);
    if outcome.accepted == 0 && outcome.statuses.is_empty() {
        bail!("nothing answered: {} connections broke or could not be made", outcome.broken);
    }
    Ok(outcome)
}

impl Cost {
    /// Of the server's threads with these names.
    pub fn of_threads(&self, names: &[&str]) -> f64 {
        round(names.iter().filter_map(|name| self.server_threads_us.get(*name)).sum())
    }
}

/// One look at the clocks.
pub struct Meter {
    server: Option<Duration>,
    threads: BTreeMap<String, Duration>,
    own: Duration,
    machine: Duration,
    at: Instant,
}

impl Meter {
    pub fn read(pid: Option<u32>) -> Self {
        Self {
            server: pid.and_then(process::cpu),
            threads: pid.map(process::cpu_by_thread).unwrap_or_default(),
            own: process::cpu(std::process::id()).unwrap_or_default(),
            machine: process::machine(),
            at: Instant::now(),
        }
    }

    /// What went by until `after`, for each of so many items.
    pub fn until(&self, after: &Self, items: u64) -> Cost {
        let each = |time: Duration| round(time.as_secs_f64() * 1e6 / items.max(1) as f64);
        let server = self.server.zip(after.server).map(|(a, b)| b.saturating_sub(a));
        let own = after.own.saturating_sub(self.own);
        let machine = after.machine.saturating_sub(self.machine);
        let others = machine.saturating_sub(own + server.unwrap_or_default());
        let threads = after.threads.iter().filter_map(|(name, time)| {
            let us = each(time.saturating_sub(self.threads.get(name).copied().unwrap_or_default()));
            (us > 0.0).then(|| (name.clone(), us))
        });
        Cost {
            server_us: server.map(each),
            server_threads_us: threads.collect(),
            generator_us: each(own),
            others_cores: round(others.as_secs_f64() / (after.at - self.at).as_secs_f64()),
            memory: None,
        }
    }
}

/// To two places.
pub fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// What all connections of the generator share.
struct Shared {
    plan: Plan,
    begins: Instant,
    ends: Instant,
    /// Times at which requests are due; none in the closed loop.
    due: Option<Mutex<mpsc::UnboundedReceiver<Instant>>>,
    outcome: RefCell<Outcome>,
    latency: RefCell<Histogram>,
    under_way: Cell<u64>,
}

const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// After a failure: a sender that comes again at once makes it worse.
const PAUSE: Duration = Duration::from_millis(10);

fn generate(plan: Plan, make: MakeRequests, begins: Instant, ends: Instant) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let connections = plan.connections;
    let shared = Rc::new(Shared {
        due: plan.rate.map(|rate| Mutex::new(pace(rate, ends))),
        plan,
        begins,
        ends,
        outcome: RefCell::default(),
        latency: RefCell::default(),
        under_way: Cell::new(0),
    });
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> =
        (0..connections).map(|i| local.spawn_local(connection(shared.clone(), make(i)))).collect();
    runtime.block_on(local.run_until(async {
        let all = futures_util::future::join_all(tasks);
        // Whoever still waits then is counted as unanswered.
        let _ = tokio::time::timeout_at((ends + ANSWERS_WITHIN).into(), all).await;
    }));
    let mut outcome = shared.outcome.take();
    if let Some(due) = &shared.due
        && let Ok(mut due) = due.try_lock()
    {
        while due.try_recv().is_ok() {
            outcome.unsent += 1;
        }
    }
    outcome.unanswered = shared.under_way.get();
    outcome.seconds = (ends - begins).as_secs_f64();
    outcome.per_second = round(outcome.counted as f64 / outcome.seconds);
    outcome.latency = shared.latency.borrow().quantiles();
    Ok(outcome)
}

/// Says when requests are due, from a thread of its own: the runtime's timers only know milliseconds.
fn pace(rate: f64, ends: Instant) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let began = Instant::now();
    std::thread::spawn(move || {
        let mut due = (0_u64..).map(|i| began + Duration::from_secs_f64(i as f64 / rate)).peekable();
        while due.peek().is_some_and(|next| *next < ends) {
            let now = Instant::now();
            while let Some(next) = due.next_if(|next| *next <= now) {
                if sender.send(next).is_err() {
                    return;
                }
            }
            if let Some(next) = due.peek() {
                // Not for each of very many: they come in groups then, and count from when they were due.
                std::thread::sleep(next.saturating_duration_since(now).max(Duration::from_micros(250)));
            }
        }
    });
    receiver
}

async fn connection(shared: Rc<Shared>, mut requests: Box<dyn Requests>) {
    let mut link = None;
    let mut answer = Vec::with_capacity(4096);
    while let Some(due) = shared.due().await {
        if link.is_none() {
            link = shared.connect().await;
        }
        let Some(stream) = &mut link else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let due = if shared.plan.rate.is_some() { due } else { Instant::now() };
        let (request, items) = requests.next(due);
        shared.under_way.set(shared.under_way.get() + 1);
        let result = exchange(stream, request, &mut answer).await;
        shared.under_way.set(shared.under_way.get() - 1);
        let is_fine = shared.count(due, items, &result);
        if !matches!(result, Ok(Answer { close: false, .. })) {
            link = None;
        }
        if !is_fine {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Shared {
    /// When the next request is due; none once it is over.
    async fn due(&self) -> Option<Instant> {
        let due = match &self.due {
            None => Some(Instant::now()),
            Some(due) => due.lock().await.recv().await,
        };
        if due.is_some() && Instant::now() >= self.ends {
            self.outcome.borrow_mut().unsent += u64::from(self.due.is_some());
            return None;
        }
        due
    }

    async fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(self.plan.target.address).await;
        match stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => Some(stream),
            Err(_) => {
                self.outcome.borrow_mut().broken += 1;
                None
            }
        }
    }

    /// Whether it was accepted.
    fn count(&self, due: Instant, items: u64, result: &std::io::Result<Answer>) -> bool {
        let now = Instant::now();
        let mut outcome = self.outcome.borrow_mut();
        outcome.sent += items;
        let status = match result {
            Ok(answer) => answer.status,
            Err(_) => {
                outcome.broken += 1;
                return false;
            }
        };
        *outcome.statuses.entry(status).or_default() += 1;
        if !(200..300).contains(&status) {
            return false;
        }
        outcome.accepted += items;
        if now >= self.begins && now < self.ends {
            outcome.counted += items;
            self.latency.borrow_mut().record(now - due);
        }
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    status: u16,
    /// The server will take no further request on this connection.
    close: bool,
}

/// Sends one request over a connection of its own; the answer's status.
pub async fn once(target: &Target, request: &[u8]) -> anyhow::Result<u16> {
    let exchanged = async {
        let mut stream = TcpStream::connect(target.address).await?;
        exchange(&mut stream, request, &mut Vec::new()).await
    };
    Ok(exchanged.await.with_context(|| format!("asking {}", target.host))?.status)
}

async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> std::io::Result<Answer> {
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(answer) = complete(buffer)? {
            return Ok(answer);
        }
    }
}

/// The answer, once it is whole.
fn complete(bytes: &[u8]) -> std::io::Result<Option<Answer>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let junk = || std::io::Error::other("the answer is not HTTP/1.1");
    let head = std::str::from_utf8(head).map_err(|_| junk())?;
    let status = head.get(9..12).and_then(|s| s.parse().ok()).ok_or_else(junk)?;
    let (mut length, mut chunked, mut close) = (0, false, false);
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(|_| junk())?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        }
    }
    let is_whole = match chunked {
        true => body.starts_with(b"0\r\n\r\n") || body.ends_with(b"\r\n0\r\n\r\n"),
        false => body.len() >= length,
    };
    Ok(is_whole.then_some(Answer { status, close }))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(u16, bool)> {
        complete(text.as_bytes()).expect("HTTP").map(|a| (a.status, a.close))
    }

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        for cut in 0..ok.len() {
            assert_eq!(read(&ok[..cut]), None, "{cut}");
        }
        assert_eq!(read(ok), Some((200, false)));
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Some((200, false)));
        let closing = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(read(closing), Some((503, true)));
        let chunked = "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        assert_eq!(read(chunked), None);
        assert_eq!(read(&format!("{chunked}0\r\n\r\n")), Some((400, false)));
        assert!(complete(b"SSH-2.0\r\n\r\n").is_err());
    }
}
