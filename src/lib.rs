//! Incident automation.
//!
//! Alerts, logs and metrics come in (`intake`), anomalies become signals (`detect`), signals become incidents
//! (`correlate`), an incident is diagnosed (`diagnose`, `llm`), a playbook is proposed (`decide`, `playbook`), carried out
//! (`act`), checked (`verify`) and told of (`notify`). `pipeline` knows the order; nothing else does.

pub mod act;
pub mod admission;
pub mod alarm;
pub mod app;
pub mod bot_api;
pub mod breaker;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod correlate;
pub mod decide;
pub mod detect;
pub mod diagnose;
pub mod export;
mod gamma;
pub mod http;
pub mod http_client;
pub mod ids;
pub mod intake;
pub mod llm;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod owned;
pub mod pipeline;
pub mod playbook;
pub mod prometheus_api;
pub mod redact;
pub mod replay;
pub mod retry;
pub mod search;
pub mod selfwatch;
pub mod slack_api;
pub mod steer;
pub mod steps;
pub mod store;
pub mod telemetry;
mod threads;
pub mod verify;
pub mod worker;
