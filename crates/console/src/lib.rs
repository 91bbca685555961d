//! What a broker shows over HTTP: metrics, health, and a page that says what is here.
//!
//! | path | answer |
//! |---|---|
//! | `/` | a plain page |
//! | `/metrics`, `/public_metrics` | OpenMetrics text, see [`metrics`] |
//! | `/livez` | 200 while the process can answer |
//! | `/readyz`, `/healthz`, `/v1/status/ready` | 200 when clients are served, else 503 and why |
//!
//! It has no way into the broker but [`Figures`], which only reads. It deliberately knows neither
//! sockets of clients nor files, so that it serves any host that can fill a [`Snapshot`].
//!
//! Bounds: [`CONNECTIONS_MAX`] connections at once, further ones wait to be accepted; a connection
//! that sends no request for [`REQUEST_WAIT`] is closed.

pub mod metrics;
mod pages;
mod pipeline;
mod server;
mod snapshot;

pub use server::{CONNECTIONS_MAX, REQUEST_WAIT, serve};
pub use snapshot::{
    CommittedOffset, Figures, GroupSnapshot, PartitionSnapshot, PipelineSnapshot, Readiness,
    RelaySnapshot, SinkSnapshot, Snapshot, TopicSnapshot, TransactionsSnapshot,
};
