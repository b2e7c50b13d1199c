//! The victim's customers: a steady stream of orders, and at one moment a handful with an outdated coupon.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Between two orders.
const EVERY: Duration = Duration::from_millis(150);
/// More than the victim's pool has connections.
const COUPONS: u64 = 10;

/// People who order from one shop.
pub struct Customers {
    http: reqwest::Client,
    orders_url: String,
    next: AtomicU64,
}

impl Customers {
    pub fn new(victim_url: &str) -> Self {
        Self {
            http: crate::http_client::new(),
            orders_url: format!("{victim_url}/orders"),
            next: AtomicU64::new(1000),
        }
    }

    /// Orders until cancelled; what the shop answers is the shop's affair.
    pub async fn order_on(&self, cancel: &CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        let all = async {
            loop {
                tick.tick().await;
                let order = self.request(json!({}));
                tokio::spawn(async move {
                    let _ = order.send().await;
                });
            }
        };
        let _: Option<()> = cancel.run_until_cancelled(all).await;
    }

    /// Orders with an outdated coupon, one after the other; the shop loses a connection to each.
    pub async fn use_coupons(&self) {
        for _ in 0..COUPONS {
            let _ = self.request(json!({ "coupon": "SPRING" })).send().await;
        }
    }

    fn request(&self, mut order: serde_json::Value) -> reqwest::RequestBuilder {
        order["id"] = self.next.fetch_add(1, Ordering::Relaxed).into();
        self.http.post(&self.orders_url).timeout(Duration::from_secs(3)).json(&order)
    }
}
