//! Flows through the public surface, against real servers.

mod api;
mod architecture;
mod chat;
mod cli;
mod correlate;
mod demo;
mod drill;
mod evidence;
mod fakes;
mod faults;
mod intake;
mod kills;
mod llm;
mod notify;
mod owned;
mod peers;
mod peers_smoke;
mod playbooks;
mod repair;
mod server;
mod service;
mod silences;
mod store;
mod stores;
mod telemetry;
mod worker;
