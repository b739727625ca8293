//! What a node says on its admin port.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::soon;

/// A node's admin port.
#[derive(Debug, Clone, Copy)]
pub struct Admin(pub SocketAddr);

/// What `/readyz` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The HTTP status: 200 or 503.
    pub code: u16,
    /// `ready`, `degraded`, `unready`.
    pub status: String,
}

/// Everything of `/metrics`, at one moment.
#[derive(Debug, Clone)]
pub struct Metrics(String);

// === impl Admin ===

impl Admin {
    /// Status and body of one request.
    pub async fn get(self, path: &str) -> (u16, String) {
        self.ask("GET", path, "").await
    }

    /// The same by another method, and with a body.
    pub async fn ask(self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let head = format!("host: test\r\nconnection: close\r\ncontent-length: {length}");
        let request = format!("{method} {path} HTTP/1.1\r\n{head}\r\n\r\n{body}");
        let exchange = async {
            let mut stream = TcpStream::connect(self.0).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = soon("an answer of the admin port", exchange).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Whether the node takes work, as it says itself.
    pub async fn readiness(self) -> Readiness {
        let (code, body) = self.get("/readyz").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        Readiness { code, status: body["status"].as_str().unwrap().to_owned() }
    }

    /// What it counts.
    pub async fn metrics(self) -> Metrics {
        let (code, body) = self.get("/metrics").await;
        assert_eq!(code, 200, "{body}");
        Metrics(body)
    }
}

// === impl Metrics ===

impl Metrics {
    /// The sum over all series of this name whose line contains each of `labels`; 0 without any.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let own = series.split('{').next() == Some(name);
            let fits = labels.iter().all(|label| series.contains(label));
            (own && fits).then(|| value.parse::<f64>().ok()).flatten()
        };
        self.0.lines().filter_map(value).sum()
    }

    /// Whether there is such a series, even one that stands at 0.
    pub fn has(&self, name: &str) -> bool {
        let of =
            |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        self.0.lines().any(of)
    }

    /// How many series there are in all.
    pub fn series(&self) -> usize {
        self.0.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count()
    }
}
