//! Spans to an OpenTelemetry collector, by OTLP over HTTP.

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::config::Otlp;

/// None without a collector.
pub(super) fn provider(settings: &Otlp) -> anyhow::Result<Option<SdkTracerProvider>> {
    if settings.url.is_empty() {
        return Ok(None);
    }
    let runtime = tokio::runtime::Handle::try_current().context("exporting spans needs a runtime")?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(OnRuntime { http: crate::http_client::new(), runtime })
        .with_endpoint(format!("{}/v1/traces", settings.url.trim_end_matches('/')))
        .build()
        .context("setting up the export of spans to otlp.url")?;
    opentelemetry::global::set_text_map_propagator(
        opentelemetry_sdk::propagation::TraceContextPropagator::new(),
    );
    let resource = Resource::builder().with_service_name("aiops").build();
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
}

/// Turns our own `tracing` spans into exported ones. Those of the HTTP stack stay out: exporting them would make more of them.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("aiops"))
        .with_filter(filter_fn(|metadata| metadata.target().starts_with("aiops")))
}

/// The batch exporter polls its requests on a thread of its own, where there is no reactor and an async client panics: each
/// request is therefore carried over to our runtime.
#[derive(Debug)]
struct OnRuntime {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait::async_trait]
impl opentelemetry_http::HttpClient for OnRuntime {
    async fn send_bytes(
        &self,
        request: opentelemetry_http::Request<bytes::Bytes>,
    ) -> Result<opentelemetry_http::Response<bytes::Bytes>, opentelemetry_http::HttpError> {
        let http = self.http.clone();
        let send = async move {
            let mut answer = http.execute(request.try_into()?).await?;
            let mut response = opentelemetry_http::Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                *headers = std::mem::take(answer.headers_mut());
            }
            Ok(response.body(answer.bytes().await?)?)
        };
        self.runtime.spawn(send).await?
    }
}
