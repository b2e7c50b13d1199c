//! Logs to standard error and, if a collector is configured, spans by OTLP over HTTP; hands back what reloads and flushes them.

mod lines;
mod otlp;

use anyhow::Context;
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::{Log, LogFormat, Otlp};

/// The set-up of logs and spans. Dropping it exports nothing: call [`Telemetry::shutdown`] last.
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    spans: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Sets up logs and spans for the whole process; fails if that was done before. Must be called on a tokio runtime, which
/// carries the export.
pub fn init(log: &Log, otlp: &Otlp) -> anyhow::Result<Telemetry> {
    let (filter, handle) = reload::Layer::new(parse(&log.filter)?);
    let spans = otlp::provider(otlp)?;
    let lines: Box<dyn tracing_subscriber::Layer<_> + Send + Sync> = match log.format {
        LogFormat::Human => Box::new(
            tracing_subscriber::fmt::layer()
                .with_ansi(colours(&std::io::stderr()))
                .with_target(false)
                .with_writer(std::io::stderr),
        ),
        LogFormat::Json => Box::new(
            tracing_subscriber::fmt::layer()
                .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
                .event_format(lines::FlatJson)
                .with_writer(std::io::stderr),
        ),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(spans.as_ref().map(otlp::layer))
        .try_init()
        .context("setting up the logs")?;
    Ok(Telemetry { filter: handle, spans })
}

/// Says whether `text` is a filter such as `info` or `aiops=debug,info`.
pub fn parse(text: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder()
        .parse(text)
        .with_context(|| format!("log.filter: {text:?} is not a filter such as info, or aiops=debug,info"))
}

/// True if `stream` is a terminal whose user did not say `NO_COLOR`.
pub fn colours(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

impl Telemetry {
    /// Lets other lines through from now on.
    pub fn refilter(&self, filter: &str) -> anyhow::Result<()> {
        self.filter.reload(parse(filter)?).context("changing the log filter")
    }

    /// Sends what is still waiting to the collector; takes at most five seconds.
    pub fn shutdown(self) {
        if let Some(spans) = self.spans
            && let Err(e) = spans.shutdown_with_timeout(std::time::Duration::from_secs(5))
        {
            tracing::warn!(error = %e, "the last spans were not exported");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bad_filter_is_named_with_what_would_be_right() {
        let e = super::parse("aiops=loud").expect_err("no such level");
        assert_eq!(
            e.to_string(),
            "log.filter: \"aiops=loud\" is not a filter such as info, or aiops=debug,info"
        );
        super::parse("aiops=debug,info").expect("valid");
    }
}
