//! Sockets that listen: binding one per worker, and accepting until the listener closes.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::handshake;
use crate::interests::MAX_WORKERS;
use crate::tls::TlsPort;
use crate::worker::Worker;

/// Connections that the kernel completes before they are accepted; it may allow fewer.
const BACKLOG: i32 = 4_096;
/// After a failed accept: the usual cause, no free file descriptors, does not go away faster.
const RETRY: Duration = Duration::from_millis(50);
/// A closing worker waits so long for its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Where devices connect: a listener for each worker on one port or both.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Without TLS; empty where there is no such port.
    pub plain: Vec<StdListener>,
    /// With TLS; as many, where there is such a port.
    pub tls: Option<(Vec<StdListener>, Arc<ServerConfig>)>,
}

/// The listeners of one worker.
pub(crate) struct WorkerListeners {
    pub(crate) plain: Option<StdListener>,
    pub(crate) tls: Option<(StdListener, Arc<ServerConfig>)>,
}

// === impl Listeners ===

impl From<Vec<StdListener>> for Listeners {
    /// Without TLS.
    fn from(plain: Vec<StdListener>) -> Self {
        Self { plain, tls: None }
    }
}

impl Listeners {
    /// Where the ports are, the plain one first.
    pub(crate) fn addresses(&self) -> io::Result<[Option<SocketAddr>; 2]> {
        let address =
            |listeners: &[StdListener]| listeners.first().map(StdListener::local_addr).transpose();
        let tls = self.tls.as_ref().map_or(&[][..], |(listeners, _)| listeners);
        Ok([address(&self.plain)?, address(tls)?])
    }

    /// Deals them out; an error where workers would have different ones.
    pub(crate) fn by_worker(self) -> io::Result<Vec<WorkerListeners>> {
        let (tls, config) = self.tls.unzip();
        let tls = tls.unwrap_or_default();
        let count = self.plain.len().max(tls.len());
        let fits = |listeners: &[StdListener]| listeners.is_empty() || listeners.len() == count;
        if !(1..=MAX_WORKERS).contains(&count) || !fits(&self.plain) || !fits(&tls) {
            let text = format!(
                "an edge has 1 to {MAX_WORKERS} listeners for each of its ports, not {} and {}",
                self.plain.len(),
                tls.len()
            );
            return Err(io::Error::other(text));
        }
        let (mut plain, mut tls) = (self.plain.into_iter(), tls.into_iter());
        let dealt = (0..count)
            .map(|_| WorkerListeners { plain: plain.next(), tls: tls.next().zip(config.clone()) });
        Ok(dealt.collect())
    }
}

// === impl WorkerListeners ===

impl WorkerListeners {
    /// Hands them to the worker's runtime.
    pub(crate) fn open(self) -> io::Result<Vec<(TcpListener, Option<Rc<TlsPort>>)>> {
        let mut opened = Vec::with_capacity(2);
        let plain = self.plain.map(|listener| (listener, None));
        for (listener, config) in plain.into_iter().chain(
            self.tls.map(|(listener, config)| (listener, Some(Rc::new(TlsPort::new(config))))),
        ) {
            listener.set_nonblocking(true)?;
            opened.push((TcpListener::from_std(listener)?, config));
        }
        Ok(opened)
    }
}

/// Binds one listener per worker to the same address; port 0 lets the system choose one for all.
///
/// An address that somebody listens on is refused, though `SO_REUSEPORT` alone would let a second
/// process share it in silence.
pub fn bind_workers(address: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    if !(1..=MAX_WORKERS).contains(&workers) {
        let text = format!("{workers} workers were asked for; 1 to {MAX_WORKERS} are possible");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // The probe closes before the first real listener opens: sockets that share a port must all
    // have SO_REUSEPORT.
    let probe = open(address, false)?;
    let address = probe.local_addr()?;
    drop(probe);
    (0..workers).map(|_| open(address, true)).collect()
}

fn open(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the worker closes; then answers what the kernel had accepted before, and closes.
pub(crate) async fn run(worker: Rc<Worker>, listener: TcpListener, tls: Option<Rc<TlsPort>>) {
    let mut failing = false;
    loop {
        tokio::select! {
            biased;
            // Closing comes first, or a flood would keep the listener open.
            () = worker.closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    failing = false;
                    receive(&worker, socket, peer, tls.as_ref());
                }
                Err(error) if is_of_one_socket(&error) => {}
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "cannot accept connections; trying on");
                    }
                    failing = true;
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
    }
    while let Some(Ok((socket, peer))) = listener.accept().now_or_never() {
        receive(&worker, socket, peer, tls.as_ref());
    }
    drop(listener);
    let deadline = tokio::time::Instant::now() + LAST_ANSWERS;
    while worker.handshakes.get() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether an accept failed for what its peer did: the next may succeed at once.
fn is_of_one_socket(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn receive(worker: &Rc<Worker>, socket: TcpStream, peer: SocketAddr, tls: Option<&Rc<TlsPort>>) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::trace!(%error, "the socket was closed before it was served");
    }
    handshake::begin(worker, socket, peer, tls);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_though_workers_share_theirs() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = bind_workers(any, 2).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert_eq!(listeners[1].local_addr().unwrap(), address);
        assert_eq!(bind_workers(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind_workers(any, 65).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
