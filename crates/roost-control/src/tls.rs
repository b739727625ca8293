//! TLS on the gRPC port: connections are handed on once their handshake is done, several of which run
//! beside each other under a time limit. Which certificate is shown is in the `ServerConfig`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::TcpIncoming;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How many run at once; further connections wait to be accepted, no longer than that.
const HANDSHAKES: usize = 1_024;

/// Connections that have TLS.
pub(crate) struct TlsIncoming {
    incoming: TcpIncoming,
    acceptor: TlsAcceptor,
    /// `None` of one that failed.
    handshakes: JoinSet<Option<TlsStream<TcpStream>>>,
}

// === impl TlsIncoming ===

impl TlsIncoming {
    pub(crate) fn new(incoming: TcpIncoming, config: Arc<ServerConfig>) -> Self {
        Self { incoming, acceptor: TlsAcceptor::from(config), handshakes: JoinSet::new() }
    }

    fn begin(&mut self, mut socket: TcpStream) {
        let acceptor = self.acceptor.clone();
        let handshake = async move {
            if speaks_http2(&socket).await? {
                say_no_tls(&mut socket).await?;
                return Err(io::Error::other("the client speaks HTTP/2 without TLS"));
            }
            acceptor.accept(socket).await
        };
        self.handshakes.spawn(async move {
            match timeout(HANDSHAKE, handshake).await {
                Ok(Ok(stream)) => Some(stream),
                // Whoever scans ports would fill the log.
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a TLS handshake on the gRPC port failed: {error}");
                    None
                }
                Err(_) => {
                    tracing::debug!("a TLS handshake on the gRPC port took too long");
                    None
                }
            }
        });
    }
}

/// Whether a client begins as HTTP/2 without TLS does: `PRI * HTTP/2.0`.
async fn speaks_http2(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let count = socket.peek(&mut first).await?;
    // A record of TLS begins with 22.
    Ok(count == 1 && first[0] == b'P')
}

/// Tells it why not, as HTTP/2 does, so that its library can show it.
async fn say_no_tls(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(&no_tls()).await?;
    socket.shutdown().await?;
    // What it has said is read to its end: else the system would call back what it was told.
    let mut passed_over = [0; 1024];
    while socket.read(&mut passed_over).await? > 0 {}
    Ok(())
}

/// SETTINGS, since a server's first frame must be that, and GOAWAY with `INADEQUATE_SECURITY`
/// (RFC 9113 §6.5, §6.8).
fn no_tls() -> Vec<u8> {
    const INADEQUATE_SECURITY: u8 = 0x0c;
    let text = b"this port speaks TLS: connect by https://";
    let length = u8::try_from(8 + text.len()).expect("the text is short");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let head = [0, 0, length, 7, 0, 0, 0, 0, 0];
    let body = [0, 0, 0, 0, 0, 0, 0, INADEQUATE_SECURITY];
    [&settings[..], &head, &body, text].concat()
}

impl Stream for TlsIncoming {
    type Item = io::Result<TlsStream<TcpStream>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            while self.handshakes.len() < HANDSHAKES {
                match Pin::new(&mut self.incoming).poll_next(cx) {
                    Poll::Ready(Some(Ok(socket))) => self.begin(socket),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => break,
                }
            }
            match self.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(stream)))) => return Poll::Ready(Some(Ok(stream))),
                // One that failed: there is room for the next.
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}
