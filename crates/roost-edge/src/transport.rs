//! The byte stream under a connection. Everything that touches a socket is here or in `tls.rs`, so that
//! another kind of stream is one more variant. An enum and no trait object: plain TCP pays one
//! well-predicted branch.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::tls::TlsStream;

/// A connection's byte stream. Reads and writes never wait; readiness is awaited apart from them.
#[derive(Debug)]
pub(crate) enum Transport {
    /// A plain TCP socket.
    Tcp(TcpStream),
    /// TLS over one. Boxed: rustls' state would else be paid for by every plain connection.
    Tls(Box<TlsStream>),
}

// === impl Transport ===

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        }
    }

    /// Waits until reading is worth a try. Only one task may wait. Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        // Not `readable()`: that keeps a waiter of its own in every idle connection's task.
        std::future::poll_fn(|cx| self.socket().poll_read_ready(cx)).await
    }

    /// Waits until writing is worth a try. Only one task may wait. Cancel safe.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.socket().poll_write_ready(cx)).await
    }

    /// Reads what is there; `WouldBlock` where nothing is, 0 at the end of the stream.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read(buffer),
            Self::Tls(stream) => stream.try_read(buffer),
        }
    }

    /// Writes what fits; `WouldBlock` where nothing does. See [`Transport::is_flushed`].
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(bytes),
            Self::Tls(stream) => stream.try_write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    /// Writes what fits of several buffers.
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write_vectored(slices),
            Self::Tls(stream) => stream.try_write_vectored(slices),
        }
    }

    /// Whether the socket has all that was taken. Over TLS the rest of a record may wait, and goes
    /// with the next write or [`Transport::try_flush`].
    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Tls(stream) => stream.is_flushed(),
        }
    }

    /// Writes what was taken and is not with the socket; `WouldBlock` where some of it still is not.
    pub(crate) fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(stream) => stream.try_flush(),
        }
    }

    /// Ends the writing direction after what was written: the peer sees the end of the stream.
    pub(crate) fn finish(&self) {
        self.end(Shutdown::Write);
    }

    /// Ends both directions after what was written: the reading task sees the end of the stream.
    pub(crate) fn shutdown(&self) {
        self.end(Shutdown::Both);
    }

    fn end(&self, directions: Shutdown) {
        if let Self::Tls(stream) = self {
            stream.say_goodbye();
        }
        shut(self.socket(), directions);
    }

    /// Ends both directions at once, dropping what the peer has not taken yet.
    pub(crate) fn abort(&self) {
        let socket = self.socket();
        if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
            tracing::trace!(%error, "the socket keeps lingering");
        }
        shut(socket, Shutdown::Both);
    }
}

fn shut(socket: &TcpStream, directions: Shutdown) {
    if let Err(error) = SockRef::from(socket).shutdown(directions) {
        tracing::trace!(%error, "the socket was closed before");
    }
}
