//! The HTTP server around the pages: connections bounded in number and in patience.

use crate::pages;
use crate::snapshot::Figures;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections served at once; a further one waits in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 128;

/// How long a connection may take to send a request, the time before its first byte included.
pub const REQUEST_WAIT: Duration = Duration::from_secs(30);

/// Serves until it is dropped; all connections end with it.
pub async fn serve(listener: TcpListener, figures: Arc<dyn Figures>) {
    let router = pages::router(figures);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let place = places.clone().acquire_owned().await.expect("never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("an HTTP connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let router = router.clone();
        open.spawn(async move {
            connection(stream, router).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, router: axum::Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WAIT)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!("an HTTP connection ended: {error}");
    }
}
