//! The pages over a real socket.

use oncelog_console::{Figures, Readiness, Snapshot, serve};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct Broker {
    running: AtomicBool,
}

impl Figures for Broker {
    fn readiness(&self) -> Readiness {
        match self.running.load(Ordering::SeqCst) {
            true => Readiness::Ready,
            false => Readiness::NotReady("recovering the log".to_owned()),
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.running.load(Ordering::SeqCst).then(|| Snapshot {
            data_directory: "/data/<x>".to_owned(),
            messages_in: 5,
            ..Snapshot::default()
        })
    }
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn start() -> (String, Arc<Broker>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broker = Arc::new(Broker::default());
    tokio::spawn(serve(listener, broker.clone()));
    (address, broker)
}

#[tokio::test]
async fn health_says_whether_clients_are_served() {
    let (address, broker) = start().await;
    assert!(get(&address, "/livez").await.starts_with("HTTP/1.1 200"));
    let answer = get(&address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("recovering the log\n"), "{answer}");
    assert!(get(&address, "/metrics").await.starts_with("HTTP/1.1 503"));
    broker.running.store(true, Ordering::SeqCst);
    for path in ["/readyz", "/healthz", "/v1/status/ready"] {
        assert!(
            get(&address, path).await.starts_with("HTTP/1.1 200"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn metrics_and_the_page() {
    let (address, broker) = start().await;
    broker.running.store(true, Ordering::SeqCst);
    for path in ["/metrics", "/public_metrics"] {
        let answer = get(&address, path).await;
        assert!(answer.contains("application/openmetrics-text"), "{answer}");
        assert!(answer.contains("\nkafka_server_brokertopicmetrics_messagesin_total 5\n"));
    }
    let page = get(&address, "/").await;
    assert!(page.contains("/data/&lt;x&gt;"), "{page}");
    assert!(get(&address, "/nowhere").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn idle_connections_do_not_add_up_without_bound() {
    let (address, _broker) = start().await;
    let mut idle = Vec::new();
    for _ in 0..oncelog_console::CONNECTIONS_MAX + 20 {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    // All places are taken: nobody else is served ...
    let waiting = tokio::time::timeout(
        std::time::Duration::from_millis(200),
        get(&address, "/livez"),
    );
    assert!(waiting.await.is_err());
    // ... until some of them go.
    idle.clear();
    assert!(get(&address, "/livez").await.starts_with("HTTP/1.1 200"));
}
