//! `aiops demo-victim`: a small shop that really breaks. An order with an outdated coupon takes a database connection and, by
//! a bug, never gives it back; when none is left, every request fails until the process is started anew.

mod pool;
mod ship;

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use serde::Deserialize;
use tokio::net::TcpSocket;

use self::{
    pool::{Connection, Exhausted, Pool},
    ship::Shipper,
};
use crate::cli::{Failure, parent::die_with};

/// What the shop is called in alerts, logs and metrics.
pub const SERVICE: &str = "checkout";
const CONNECTIONS: usize = 8;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port of 127.0.0.1 to serve on
    #[arg(long)]
    port: u16,
    /// Base URL of the aiops that takes the logs and metrics; the token is in AIOPS_TOKEN
    #[arg(long)]
    intake: String,
    /// The process that must not be outlived
    #[arg(long)]
    parent: i32,
}

/// The shop's state.
struct Shop {
    pool: Pool,
    shipper: Shipper,
    /// Orders that were paid, and requests that failed.
    paid: AtomicU64,
    failed: AtomicU64,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    die_with(args.parent, "demo-victim is started by `aiops demo`")?;
    let token = std::env::var("AIOPS_TOKEN").unwrap_or_default();
    let shipper = Shipper::start(args.intake, token);
    shipper.info("checkout starts with a pool of 8 database connections");
    let (paid, failed) = Default::default();
    let shop = web::Data::from(Arc::new(Shop { pool: Pool::new(CONNECTIONS), shipper, paid, failed }));
    tokio::spawn(report(shop.clone().into_inner()));
    let listener = socket_on(args.port).and_then(|socket| socket.listen(1024)?.into_std());
    let taken = |e| Failure::failed(format!("127.0.0.1:{}: {e}", args.port));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shop.clone())
            .route("/", web::get().to(front))
            .route("/orders", web::post().to(order))
            .route("/healthz", web::get().to(healthz))
            .route("/metrics", web::get().to(metrics))
    })
    .workers(1)
    .disable_signals()
    .listen(listener.map_err(taken)?)
    .map_err(taken)?;
    server.run().await.map_err(|e| Failure::failed(format!("the shop's server: {e}")))
}

/// A socket on this port, or on any for 0, that another process may hold bound as long as it does not listen.
pub(super) fn socket_on(port: u16) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

/// What a customer orders.
#[derive(Deserialize)]
struct Order {
    id: u64,
    #[serde(default)]
    coupon: Option<String>,
}

async fn order(shop: web::Data<Shop>, order: web::Json<Order>) -> HttpResponse {
    let started = Instant::now();
    let connection = match shop.connect().await {
        Ok(connection) => connection,
        Err(answer) => return answer,
    };
    query(order.id).await;
    if order.coupon.is_some() {
        // The bug: this way out forgets to give the connection back.
        connection.leak();
        shop.shipper.warn(&format!("order {}: coupon is no longer valid", order.id));
        return HttpResponse::BadRequest().body("coupon is no longer valid");
    }
    drop(connection);
    shop.paid.fetch_add(1, Ordering::Relaxed);
    let took = started.elapsed();
    shop.shipper.took(took);
    shop.shipper.info(&format!("order {} paid in {} ms", order.id, took.as_millis()));
    HttpResponse::Ok().body("paid")
}

async fn front(shop: web::Data<Shop>) -> HttpResponse {
    match shop.connect().await {
        Ok(_connection) => {
            query(0).await;
            HttpResponse::Ok().body("The shop is open.")
        }
        Err(answer) => answer,
    }
}

/// Healthy means: there is a database connection to be had.
async fn healthz(shop: web::Data<Shop>) -> HttpResponse {
    match shop.pool.take().await {
        Ok(_connection) => HttpResponse::Ok().body("ok"),
        Err(e) => HttpResponse::ServiceUnavailable().body(e.to_string()),
    }
}

async fn metrics(shop: web::Data<Shop>) -> HttpResponse {
    let text = format!(
        "# HELP checkout_db_connections_in_use Database connections in use.\n\
         # TYPE checkout_db_connections_in_use gauge\n\
         checkout_db_connections_in_use {}\n\
         # HELP checkout_db_connections_max Database connections that there are.\n\
         # TYPE checkout_db_connections_max gauge\n\
         checkout_db_connections_max {CONNECTIONS}\n\
         # HELP checkout_orders_paid_total Orders that were paid.\n\
         # TYPE checkout_orders_paid_total counter\n\
         checkout_orders_paid_total {}\n\
         # HELP checkout_requests_failed_total Requests that found no database connection.\n\
         # TYPE checkout_requests_failed_total counter\n\
         checkout_requests_failed_total {}\n",
        shop.pool.in_use(),
        shop.paid.load(Ordering::Relaxed),
        shop.failed.load(Ordering::Relaxed)
    );
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text)
}

impl Shop {
    /// A connection, or the 500 that a customer gets without one.
    async fn connect(&self) -> Result<Connection, HttpResponse> {
        self.pool.take().await.map_err(|exhausted: Exhausted| {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.shipper.error(&format!("cannot serve request: {exhausted}"));
            HttpResponse::InternalServerError().body(exhausted.to_string())
        })
    }
}

/// What a database would take: a few milliseconds, never the same.
async fn query(order: u64) {
    tokio::time::sleep(Duration::from_millis(4 + order * 7 % 9)).await;
}

/// Ships a sample of every metric twice a second.
async fn report(shop: Arc<Shop>) {
    let mut failed_before = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tick.tick().await;
        let failed = shop.failed.load(Ordering::Relaxed);
        let latency = shop.shipper.mean_latency_ms();
        let mut samples = vec![
            ("checkout_db_connections_in_use", shop.pool.in_use() as f64),
            ("checkout_failed_requests", (failed - failed_before) as f64),
        ];
        samples.extend(latency.map(|ms| ("checkout_order_latency_ms", ms)));
        failed_before = failed;
        shop.shipper.ship(&samples).await;
    }
}
