//! Flows through the public surface, against real servers.

mod correlate;
mod peers;
mod peers_smoke;
mod store;
mod stores;
mod worker;
