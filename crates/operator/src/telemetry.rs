//! Logs: one JSON object a line, or text on a terminal; `RUST_LOG` chooses what is told. Traces, by OTLP
//! over HTTP, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set: a trace for each pass over a workspace, with the
//! requests to the API server in it.

use std::io::IsTerminal as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::{Subscriber, warn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::context::MANAGER;

/// What is told where `RUST_LOG` does not say.
const LOGGED: &str = "info,kube_client=warn,kube_runtime=warn";
/// What is traced: our passes, and the client's requests in them.
const TRACED: &str = "info,kube_client=debug,kube_runtime=warn,opentelemetry=off,opentelemetry_sdk=off,\
                      opentelemetry_otlp=off,opentelemetry_http=off";

/// What is to be sent before the process ends.
#[derive(Debug)]
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Sends what is left. `runtime` has to run still, and this thread may not be one of its own.
    pub(crate) fn end(self) {
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown()) {
            warn!(%error, "the last traces were not sent");
        }
    }
}

/// Starts logging, and tracing where it is asked for.
pub(crate) fn set_up(runtime: &Handle) -> Telemetry {
    let tracing = is_traced().then(|| provider(runtime)).transpose();
    let (provider, trouble) = match tracing {
        Ok(provider) => (provider, None),
        Err(error) => (None, Some(error)),
    };
    let traces = provider.as_ref().map(|provider| {
        let tracer = provider.tracer(MANAGER);
        let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_threads(false);
        layer.with_location(false).with_filter(EnvFilter::new(TRACED))
    });
    tracing_subscriber::registry().with(logs()).with(traces).init();
    if let Some(error) = trouble {
        warn!(%error, "no traces are sent; see OTEL_EXPORTER_OTLP_ENDPOINT");
    }
    Telemetry(provider)
}

fn logs<S>() -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let layer = fmt::layer().with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        layer.with_filter(filter).boxed()
    } else {
        let layer = layer.json().flatten_event(true).with_current_span(true).with_span_list(false);
        layer.with_filter(filter).boxed()
    }
}

/// Whether OpenTelemetry's own variables ask for traces.
fn is_traced() -> bool {
    let is_set = |name| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let is_off = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value == "true");
    let is_asked = is_set("OTEL_EXPORTER_OTLP_ENDPOINT");
    !is_off && (is_asked || is_set(opentelemetry_otlp::OTEL_EXPORTER_OTLP_TRACES_ENDPOINT))
}

fn provider(runtime: &Handle) -> Result<SdkTracerProvider, ExporterBuildError> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build();
    let client = client.map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?;
    let http = Http { client, runtime: runtime.clone() };
    let exporter = SpanExporter::builder().with_http().with_http_client(http).build()?;
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", crate::metrics::VERSION));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(MANAGER);
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
    Ok(provider.with_resource(resource.build()).build())
}

/// Our HTTP client. Traces are sent from a thread that is none of the runtime's.
#[derive(Debug)]
struct Http {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            *response.body_mut() = answer.bytes().await?;
            Ok::<_, HttpError>(response)
        });
        sent.await?
    }
}
