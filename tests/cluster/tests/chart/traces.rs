//! Traces reach a collector, and logs are JSON with the workspace's name and revision.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use testkit::cluster::tools::needs_control_plane;
use tests_cluster::{Operator, Place, WORKSPACE};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A collector: what is sent to it, by OTLP over HTTP.
async fn collector() -> (String, UnboundedReceiver<ExportTraceServiceRequest>) {
    type Told = UnboundedSender<ExportTraceServiceRequest>;
    let (told, heard) = unbounded_channel();
    let take = |State(told): State<Told>, headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["tenant"], "team");
        told.send(ExportTraceServiceRequest::decode(body).unwrap()).unwrap();
    };
    let router = Router::new().route("/v1/traces", post(take)).with_state(told);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), heard)
}

fn spans(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    request.resource_spans.iter().flat_map(|one| &one.scope_spans).flat_map(|one| &one.spans)
}

fn has(span: &Span, name: &str, value: &str) -> bool {
    let found = span.attributes.iter().find(|one| one.key == name);
    found.is_some_and(|one| format!("{:?}", one.value).contains(&format!("{value:?}")))
}

/// A pass over a workspace is a trace, and the requests that it makes are in it.
///
/// On threads of its own: the collector answers also while the end of the operator is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_is_a_trace_with_its_requests() {
    if !needs_control_plane("a_pass_is_a_trace_with_its_requests") {
        return;
    }
    let place = Place::new("traces").await.unwrap();
    let (endpoint, mut heard) = collector().await;
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "tenant=team"),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
    ];
    let mut operator = Operator::start_in(&place, &environment).unwrap();
    let made = place.apply(WORKSPACE).await.unwrap();
    let revision = plan::workspace_revision(&made.spec);
    place.pod_of("-pre").await.unwrap();
    // What is left is sent at the end.
    operator.stop().unwrap();

    let (mut all, mut resource) = (Vec::new(), String::new());
    while let Ok(Some(request)) = tokio::time::timeout(Duration::from_secs(1), heard.recv()).await {
        resource += &format!("{:?}", request.resource_spans[0].resource);
        all.extend(spans(&request).cloned());
    }
    assert!(
        resource.contains("anneal-operator") && resource.contains("service.version"),
        "{resource}"
    );
    let passes: Vec<&Span> = all.iter().filter(|span| span.name == "workspace").collect();
    assert!(!passes.is_empty(), "{all:#?}");
    let is_named = |pass: &&Span| {
        has(pass, "workspace", "reviews")
            && has(pass, "namespace", "traces")
            && has(pass, "revision", &revision)
    };
    assert!(passes.iter().all(is_named), "{passes:#?}");
    let inside = |span: &&Span| passes.iter().any(|pass| pass.span_id == span.parent_span_id);
    let requests: Vec<&Span> = all.iter().filter(inside).collect();
    let is_patch = |span: &&Span| has(span, "http.method", "PATCH");
    assert!(requests.iter().any(is_patch), "no request in a pass: {all:#?}");

    let log = operator.log().unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let applied: Vec<_> = lines.filter(|line| line["message"] == "applied").collect();
    assert!(!applied.is_empty(), "{log}");
    for line in applied {
        let span = &line["span"];
        assert_eq!(span["workspace"], "reviews", "{line}");
        assert_eq!(span["namespace"], "traces", "{line}");
        assert_eq!(span["revision"], revision.as_str(), "{line}");
    }
}

/// A collector that is away costs nothing but a line in the log.
#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    if !needs_control_plane("a_collector_that_is_away_holds_nothing_up") {
        return;
    }
    let place = Place::new("untraced").await.unwrap();
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let mut operator = Operator::start_in(&place, &environment).unwrap();
    place.apply(WORKSPACE).await.unwrap();
    place.pod_of("-pre").await.unwrap();
    operator.stop().unwrap();
}
