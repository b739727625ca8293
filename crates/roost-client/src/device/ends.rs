//! How connections end, and why they cannot be opened. What that asks of a client is in `retry.rs`.

use std::fmt;
use std::io;

use super::connection::OPEN_TIMEOUT;
use super::handshake::{Refusal, UrlError};

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedBy {
    /// The hub sent a close frame.
    Hub,
    /// This client closed.
    Client,
    /// Nobody said goodbye.
    Network,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The WebSocket close code; 1005 where the hub named none, 1006 where the connection broke.
    pub code: u16,
    /// In words.
    pub reason: String,
    /// Who did it.
    pub by: ClosedBy,
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is none.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The server cannot be reached, or broke the connection off.
    #[error("cannot reach the hub: {0}")]
    Connect(#[from] io::Error),
    /// No TLS connection came about: which mistake that is.
    #[error("{0}")]
    Tls(String),
    /// What answers is not a hub.
    #[error("what answers there is not a Roost hub: {0}")]
    NotRoost(String),
    /// The hub refused the upgrade.
    #[error("the hub refused the connection: {0}")]
    Refused(Refusal),
    /// The hub closed before `welcome`.
    #[error("the hub closed the connection: {0}")]
    Closed(Closed),
    /// It took too long.
    #[error("the hub did not answer within {} s", OPEN_TIMEOUT.as_secs())]
    Timeout,
}

// === impl Closed ===

impl Closed {
    /// Nobody said goodbye: what was seen instead.
    pub(super) fn network(error: impl fmt::Display) -> Self {
        Self { code: 1006, reason: error.to_string(), by: ClosedBy::Network }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}
