//! Tells a service manager how the service is, by the protocol of sd_notify(3): one line in a datagram to `NOTIFY_SOCKET`.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// Nobody, if no manager asked to be told.
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants a sign of life; half of the time after which it restarts us.
    pub every: Option<Duration>,
}

impl Manager {
    pub fn from_env() -> Self {
        let var = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        let micros = var("WATCHDOG_USEC").and_then(|v| v.parse().ok()).filter(|us| *us > 0);
        let for_us = var("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let every = micros.filter(|_| for_us).map(|us: u64| Duration::from_micros(us / 2));
        Self { socket: var("NOTIFY_SOCKET").and_then(|name| connect(&name)), every }
    }

    /// A manager that cannot be told goes by what it sees; so this fails silently but for a line in the log.
    pub fn tell(&self, state: &str) {
        let Some((socket, to)) = &self.socket else { return };
        if let Err(e) = socket.send_to_addr(state.as_bytes(), to) {
            tracing::warn!(error = %e, state, "the service manager (NOTIFY_SOCKET) could not be told");
        }
    }
}

fn connect(name: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(hidden) => SocketAddr::from_abstract_name(hidden),
        None => SocketAddr::from_pathname(name),
    };
    let socket = UnixDatagram::unbound().and_then(|s| s.set_nonblocking(true).map(|()| s));
    match (socket, address) {
        (Ok(socket), Ok(address)) => Some((socket, address)),
        (Err(e), _) | (_, Err(e)) => {
            tracing::warn!(error = %e, name, "NOTIFY_SOCKET cannot be used");
            None
        }
    }
}
