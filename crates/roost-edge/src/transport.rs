//! The byte stream under a connection. Everything that touches a socket is here, so that another
//! kind of stream (TLS) is one more variant.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// A connection's byte stream. Reads and writes never wait; readiness is awaited apart from them.
#[derive(Debug)]
pub(crate) enum Transport {
    /// A plain TCP socket.
    Tcp(TcpStream),
}

// === impl Transport ===

impl Transport {
    /// Waits until reading is worth a try. Only one task may wait. Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            // Not `readable()`: that keeps a waiter of its own in every idle connection's task.
            Self::Tcp(socket) => std::future::poll_fn(|cx| socket.poll_read_ready(cx)).await,
        }
    }

    /// Waits until writing is worth a try. Only one task may wait. Cancel safe.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => std::future::poll_fn(|cx| socket.poll_write_ready(cx)).await,
        }
    }

    /// Reads what is there; `WouldBlock` where nothing is, 0 at the end of the stream.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read(buffer),
        }
    }

    /// Writes what fits; `WouldBlock` where nothing does.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(bytes),
        }
    }

    /// Writes what fits of several buffers.
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write_vectored(slices),
        }
    }

    /// Ends the writing direction after what was written: the peer sees the end of the stream.
    pub(crate) fn finish(&self) {
        let Self::Tcp(socket) = self;
        if let Err(error) = SockRef::from(socket).shutdown(Shutdown::Write) {
            tracing::trace!(%error, "the socket was closed before");
        }
    }

    /// Ends both directions after what was written: the reading task sees the end of the stream.
    pub(crate) fn shutdown(&self) {
        let Self::Tcp(socket) = self;
        if let Err(error) = SockRef::from(socket).shutdown(Shutdown::Both) {
            tracing::trace!(%error, "the socket was closed before");
        }
    }

    /// Ends both directions at once, dropping what the peer has not taken yet.
    pub(crate) fn abort(&self) {
        let Self::Tcp(socket) = self;
        if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
            tracing::trace!(%error, "the socket keeps lingering");
        }
        self.shutdown();
    }
}
