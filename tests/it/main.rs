//! Flows through the public surface, against real servers.

mod api;
mod architecture;
mod cli;
mod correlate;
mod evidence;
mod intake;
mod llm;
mod peers;
mod peers_smoke;
mod playbooks;
mod repair;
mod server;
mod store;
mod stores;
mod telemetry;
mod worker;
