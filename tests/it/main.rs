//! Flows through the public surface, against real servers.

mod peers;
mod peers_smoke;
