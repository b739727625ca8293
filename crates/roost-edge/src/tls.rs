//! TLS under a connection, by rustls' unbuffered interface: a stream that is at rest owns its keys and
//! nothing else. Ciphertext is read into a buffer of the worker's port and decrypted from there; what
//! is kept for a connection is part of a record that has not come whole, and ciphertext that the
//! socket did not take.
//!
//! Certificates, their reload and the versions spoken are in the `rustls::ServerConfig` that whoever
//! starts the edge hands in; the handshake's time limit is in `handshake`.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The most bytes of one record on the wire: 16 KiB, what TLS 1.2 lets it grow by, and its header. A
/// handshake message may have no more either: a `ClientHello` has two thousand.
const MAX_RECORD: usize = (16 << 10) + 2048 + 5;
/// How much plaintext goes into one record.
const RECORD_PLAIN: usize = 16 << 10;
/// One read takes at most this much, as without TLS; shared by all connections of a worker.
const READ_BUFFER: usize = 64 << 10;

/// The TLS port of one worker: how its connections are to speak, and the buffers that they share.
pub(crate) struct TlsPort {
    config: Arc<ServerConfig>,
    /// Ciphertext as it comes. Borrowed only while nothing is awaited, like the others.
    incoming: RefCell<Box<[u8]>>,
    /// Frames to be put into one record.
    gathered: RefCell<Vec<u8>>,
    /// That record.
    record: RefCell<Vec<u8>>,
}

/// A connection's TLS over its socket. Reads and writes never wait, but for the two traits that hyper
/// needs during the upgrade.
pub(crate) struct TlsStream {
    socket: TcpStream,
    port: Rc<TlsPort>,
    state: RefCell<State>,
}

struct State {
    tls: UnbufferedServerConnection,
    /// Came, and is no whole record yet.
    partial: Vec<u8>,
    /// Encrypted, and not taken by the socket. At most one record beside what TLS itself says.
    unsent: Vec<u8>,
    /// Decrypted, and not asked for. Only hyper reads less at a time than one record has.
    plain: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
    /// The peer was told that nothing more comes.
    said_goodbye: bool,
}

/// What one look at the socket gave.
enum Pulled {
    /// So many bytes of plaintext.
    Bytes(usize),
    /// What came was TLS' own, or no whole record.
    Nothing,
    /// The end of the stream.
    End,
}

/// Why there is no TLS connection.
#[derive(Debug)]
pub(crate) enum TlsFailure {
    /// The client speaks HTTP without TLS.
    PlainHttp,
    /// It broke off, or has nothing in common with this hub.
    Other(io::Error),
}

// === impl TlsFailure ===

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainHttp => f.write_str("the client speaks HTTP without TLS"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

// === impl TlsPort ===

impl TlsPort {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            config,
            incoming: RefCell::new(vec![0; READ_BUFFER].into()),
            gathered: RefCell::new(Vec::with_capacity(RECORD_PLAIN)),
            record: RefCell::new(vec![0; MAX_RECORD]),
        }
    }
}

// === impl TlsStream ===

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsStream({:?})", self.socket)
    }
}

impl TlsStream {
    /// A stream whose handshake is to be done.
    pub(crate) fn new(socket: TcpStream, port: &Rc<TlsPort>) -> Result<Self, TlsFailure> {
        let tls = UnbufferedServerConnection::new(Arc::clone(&port.config));
        let tls = tls.map_err(|error| TlsFailure::Other(broken(error)))?;
        let state = State {
            tls,
            partial: Vec::new(),
            unsent: Vec::new(),
            plain: Vec::new(),
            ended: false,
            said_goodbye: false,
        };
        Ok(Self { socket, port: Rc::clone(port), state: RefCell::new(state) })
    }

    /// The socket, to wait for and to end.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether the socket has all that was written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.state.borrow().unsent.is_empty()
    }

    /// The handshake, to its end. Not cancel safe: the stream is of no use after.
    pub(crate) async fn handshake(&self) -> Result<(), TlsFailure> {
        let done = poll_fn(|cx| {
            loop {
                // What comes behind the handshake waits in `plain`.
                let pulled = self.pull(&mut []);
                if self.poll_unsent(cx)?.is_ready() && !self.state.borrow().tls.is_handshaking() {
                    return Poll::Ready(Ok(()));
                }
                match pulled {
                    Ok(Pulled::Bytes(_) | Pulled::Nothing) => {}
                    Ok(Pulled::End) => return Poll::Ready(Err(unexpected_end())),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(self.socket.poll_read_ready(cx))?;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        });
        done.await.map_err(|error: io::Error| {
            if speaks_http(&self.state.borrow().partial) {
                TlsFailure::PlainHttp
            } else {
                TlsFailure::Other(error)
            }
        })
    }

    /// What was decrypted and not read: it will not make the socket readable again.
    pub(crate) fn take_plain(&self) -> Vec<u8> {
        mem::take(&mut self.state.borrow_mut().plain)
    }

    /// Reads what is there; `WouldBlock` where nothing is, 0 at the end of the stream.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.pull(buffer)? {
            Pulled::Bytes(count) => Ok(count),
            // The socket's readiness stands until it has nothing, so that this is tried again.
            Pulled::Nothing => Err(io::ErrorKind::WouldBlock.into()),
            Pulled::End => Ok(0),
        }
    }

    /// Encrypts and writes until the socket is full. What was taken is on its way: the rest of its
    /// record is sent before anything else. `WouldBlock` where nothing was taken.
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        state.flush(&self.socket)?;
        let mut gathered = self.port.gathered.borrow_mut();
        let mut record = self.port.record.borrow_mut();
        let mut left = slices.iter().map(|slice| &**slice).filter(|slice| !slice.is_empty());
        let mut rest: &[u8] = left.next().unwrap_or_default();
        let mut taken = 0;
        while !rest.is_empty() && state.unsent.is_empty() {
            gathered.clear();
            while gathered.len() < RECORD_PLAIN && !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(RECORD_PLAIN - gathered.len()));
                gathered.extend_from_slice(now);
                rest = if later.is_empty() { left.next().unwrap_or_default() } else { later };
            }
            let count = state.encrypt(&gathered, &mut record)?;
            state.send(&self.socket, &record[..count])?;
            taken += gathered.len();
        }
        Ok(taken)
    }

    /// Writes what the socket did not take; `WouldBlock` where it still does not.
    pub(crate) fn try_flush(&self) -> io::Result<()> {
        self.state.borrow_mut().flush(&self.socket)
    }

    /// Tells the peer that nothing more comes, if the socket takes it.
    pub(crate) fn say_goodbye(&self) {
        let state = &mut *self.state.borrow_mut();
        if let Err(error) = state.say_goodbye(&self.socket) {
            tracing::trace!(%error, "the peer was not told that the stream ends");
        }
    }

    /// Reads once and decrypts it: into `buffer`, and beyond its end into `plain`.
    fn pull(&self, buffer: &mut [u8]) -> io::Result<Pulled> {
        let state = &mut *self.state.borrow_mut();
        if !state.plain.is_empty() && !buffer.is_empty() {
            return Ok(Pulled::Bytes(state.give_plain(buffer)));
        }
        if state.ended {
            return Ok(Pulled::End);
        }
        let mut incoming = self.port.incoming.borrow_mut();
        let limit = buffer.len().clamp(MAX_RECORD, incoming.len());
        let held = state.partial.len();
        if held >= limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message is too long"));
        }
        let count = self.socket.try_read(&mut incoming[held..limit])?;
        if count == 0 {
            state.ended = true;
            return Ok(Pulled::End);
        }
        incoming[..held].copy_from_slice(&mem::take(&mut state.partial));
        let came = &mut incoming[..held + count];
        let decrypted = state.decrypt(came, buffer);
        // A key update's answer, or an alert: what the socket does not take goes before the next write.
        match state.flush(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        match decrypted? {
            0 if state.ended => Ok(Pulled::End),
            0 => Ok(Pulled::Nothing),
            count => Ok(Pulled::Bytes(count)),
        }
    }

    /// Ready once everything is written.
    fn poll_unsent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                flushed => return Poll::Ready(flushed),
            }
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.try_read(buf.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What TLS itself has to say goes out meanwhile.
                    if let Poll::Ready(Err(error)) = self.poll_unsent(cx) {
                        return Poll::Ready(Err(error));
                    }
                    ready!(self.socket.poll_read_ready(cx))?;
                }
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        Poll::Ready(self.try_write_vectored(&[IoSlice::new(bytes)]))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unsent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_goodbye();
        self.poll_unsent(cx)
    }
}

// === impl State ===

impl State {
    fn give_plain(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.plain.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.plain[..count]);
        self.plain.drain(..count);
        if self.plain.is_empty() {
            self.plain = Vec::new();
        }
        count
    }

    /// Decrypts every whole record of `came` and keeps the rest. Says how many bytes of plaintext are
    /// in `buffer` now, or beyond it if it has no room at all.
    fn decrypt(&mut self, came: &mut [u8], buffer: &mut [u8]) -> io::Result<usize> {
        let (mut used, mut filled) = (0, 0);
        let failed = loop {
            let UnbufferedStatus { discard, state, .. } =
                self.tls.process_tls_records(&mut came[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        used += record.discard;
                        let room = buffer.len() - filled;
                        let (now, later) = record.payload.split_at(record.payload.len().min(room));
                        buffer[filled..filled + now.len()].copy_from_slice(now);
                        filled += now.len();
                        self.plain.extend_from_slice(later);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.unsent),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Err(error) => break Some(error),
                // Nothing whole is left. Early data is never offered.
                Ok(_) => {
                    used += discard;
                    break None;
                }
            }
            used += discard;
        };
        let Some(error) = failed else {
            self.partial = came[used..].to_vec();
            return Ok(filled);
        };
        self.ended = true;
        if speaks_http(came) {
            // Kept for whoever asks why; an alert would be noise to such a client.
            self.partial = came[..came.len().min(8)].to_vec();
        } else {
            self.queue_alert();
        }
        Err(broken(error))
    }

    /// What rustls has to say about an error of the peer.
    fn queue_alert(&mut self) {
        if let Ok(ConnectionState::EncodeTlsData(mut alert)) =
            self.tls.process_tls_records(&mut []).state
        {
            encode(&mut alert, &mut self.unsent);
        }
    }

    /// Encrypts one record's worth into `record` and says how long that is.
    fn encrypt(&mut self, plain: &[u8], record: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            // With what is kept of the peer's bytes: rustls may remember places in them.
            let UnbufferedStatus { discard, state, .. } =
                self.tls.process_tls_records(&mut self.partial);
            match state.map_err(broken)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    match traffic.encrypt(plain, record) {
                        Ok(count) => return Ok(count),
                        Err(EncryptError::InsufficientSize(size)) => {
                            record.resize(size.required_size, 0);
                        }
                        Err(error) => return Err(io::Error::other(error)),
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, &mut self.unsent),
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.ended = true,
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            self.partial.drain(..discard);
        }
    }

    /// Writes ciphertext behind what waits, and keeps what the socket does not take.
    fn send(&mut self, socket: &TcpStream, mut record: &[u8]) -> io::Result<()> {
        while self.unsent.is_empty() && !record.is_empty() {
            match socket.try_write(record) {
                Ok(count) => record = &record[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unsent.extend_from_slice(record);
        Ok(())
    }

    fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        let mut sent = 0;
        let written = loop {
            if sent == self.unsent.len() {
                break Ok(());
            }
            match socket.try_write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) => break Err(error),
            }
        };
        if sent == self.unsent.len() {
            // A stream at rest holds no buffer.
            self.unsent = Vec::new();
        } else {
            self.unsent.drain(..sent);
        }
        written
    }

    fn say_goodbye(&mut self, socket: &TcpStream) -> io::Result<()> {
        if mem::replace(&mut self.said_goodbye, true) {
            return Ok(());
        }
        let state = self.tls.process_tls_records(&mut self.partial).state;
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            let mut alert = [0; 64];
            let count = traffic.queue_close_notify(&mut alert).map_err(io::Error::other)?;
            self.unsent.extend_from_slice(&alert[..count]);
        }
        self.flush(socket)
    }
}

/// Appends what rustls has to say.
fn encode<Side>(data: &mut EncodeTlsData<'_, Side>, unsent: &mut Vec<u8>) {
    let start = unsent.len();
    let mut room = 2 << 10;
    loop {
        unsent.resize(start + room, 0);
        match data.encode(&mut unsent[start..]) {
            Ok(count) => return unsent.truncate(start + count),
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Err(EncodeError::AlreadyEncoded) => return unsent.truncate(start),
        }
    }
}

/// Whether this is the beginning of a request without TLS.
fn speaks_http(bytes: &[u8]) -> bool {
    // As many bytes as rustls needs to see that they are no record.
    [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO", b"PRI *"]
        .iter()
        .any(|method| bytes.starts_with(*method))
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn unexpected_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the client broke the TLS handshake off")
}
