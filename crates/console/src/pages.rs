//! The answers to each path.

use crate::metrics;
use crate::snapshot::{Figures, PipelineSnapshot, Readiness, Snapshot};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

type Shared = State<Arc<dyn Figures>>;

pub(crate) fn router(figures: Arc<dyn Figures>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(scrape))
        .route("/public_metrics", get(scrape))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/v1/status/ready", get(ready))
        .fallback(async || (StatusCode::NOT_FOUND, "not found; see / for what is here\n"))
        .with_state(figures)
}

async fn scrape(State(figures): Shared) -> Response {
    let (snapshot, pipeline) = (figures.snapshot(), figures.pipeline());
    if snapshot.is_none() && pipeline == PipelineSnapshot::default() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the broker is not running\n",
        )
            .into_response();
    }
    match metrics::render(snapshot.as_ref(), &pipeline) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            let why = format!("the metrics could not be written: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
    }
}

async fn ready(State(figures): Shared) -> Response {
    match figures.readiness() {
        Readiness::Ready => "ok\n".into_response(),
        Readiness::NotReady(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
        }
    }
}

async fn index(State(figures): Shared) -> Html<String> {
    let state = match figures.readiness() {
        Readiness::Ready => "ready".to_owned(),
        Readiness::NotReady(why) => format!("not ready: {why}"),
    };
    let facts = figures
        .snapshot()
        .map_or(String::new(), |snapshot| facts(&snapshot));
    Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Oncelog</title>\
         </head><body>\n<h1>Oncelog</h1>\n<p>This process is {}.</p>\n{facts}\
         <ul>\n<li><a href=\"/metrics\">/metrics</a>: figures for Prometheus</li>\n\
         <li><a href=\"/readyz\">/readyz</a>: whether clients are served</li>\n\
         <li><a href=\"/livez\">/livez</a>: whether the process answers</li>\n</ul>\n\
         </body></html>\n",
        escape(&state)
    ))
}

fn facts(snapshot: &Snapshot) -> String {
    let partitions: usize = snapshot
        .topics
        .iter()
        .map(|topic| topic.partitions.len())
        .sum();
    let rows = [
        ("Bootstrap address", snapshot.bootstrap.clone()),
        ("Data directory", snapshot.data_directory.clone()),
        ("Durability", snapshot.durability.clone()),
        (
            "Topics",
            format!("{} with {partitions} partitions", snapshot.topics.len()),
        ),
        ("Groups", snapshot.groups.len().to_string()),
        ("Connections", snapshot.connections.to_string()),
    ];
    let row =
        |(name, value): &(&str, String)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value));
    let rows: String = rows.iter().map(row).collect();
    format!("<dl>\n{rows}</dl>\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
