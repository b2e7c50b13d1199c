//! Flows through the public surface, against real servers.

mod architecture;
mod cli;
mod correlate;
mod llm;
mod peers;
mod peers_smoke;
mod store;
mod stores;
mod telemetry;
mod worker;
