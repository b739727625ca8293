//! A TCP proxy that misbehaves on demand: put between the hub and Redis, or a device and the hub.
//! Faults of the Redis process itself are in `redis.rs`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes read at once; what is held back beyond them waits in the kernel, so memory is bounded.
const CHUNK: usize = 16 * 1024;

/// One way through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who connected to the target.
    ToTarget,
    /// From the target to who connected.
    ToClient,
    /// Both.
    Both,
}

/// A proxy in front of one target. Dropping it cuts everything and closes its port.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    open: watch::Receiver<usize>,
    swallowed: watch::Receiver<u64>,
    /// The accepting task, which owns the connections' tasks.
    _tasks: JoinSet<()>,
}

/// What goes wrong at the moment.
#[derive(Debug, Clone, Copy)]
struct Faults {
    /// Where new connections lead.
    target: SocketAddr,
    /// New connections are reset.
    refuse: bool,
    /// Raised by a cut: connections of an older generation end.
    generation: u64,
    to_target: Link,
    to_client: Link,
}

/// What goes wrong one way.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    /// Hold bytes (and ends) back.
    stalled: bool,
    /// Take bytes and pass none on.
    dropping: bool,
    /// Hold each chunk back for this long.
    delay: Duration,
}

/// Counts a connection as open while it lives.
struct OpenGuard(watch::Sender<usize>);

/// What a connection needs of its proxy.
#[derive(Clone)]
struct Shared {
    faults: watch::Receiver<Faults>,
    /// How many bytes were taken and not passed on, in all.
    swallowed: watch::Sender<u64>,
}

// === impl FaultProxy ===

impl FaultProxy {
    /// Starts a proxy on a free loopback port that passes everything to `target`.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (faults, watched) = watch::channel(Faults::none(target));
        let (open_sender, open) = watch::channel(0);
        let (count, swallowed) = watch::channel(0);
        let shared = Shared { faults: watched, swallowed: count };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared, open_sender));
        Ok(Self { address, faults, open, swallowed, _tasks: tasks })
    }

    /// The same for a server on a loopback port.
    pub async fn to_port(port: u16) -> io::Result<Self> {
        Self::start((Ipv4Addr::LOCALHOST, port).into()).await
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of [`FaultProxy::address`].
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Resets every open connection on both sides, as a crash would. New ones are taken.
    pub fn cut(&self) {
        self.faults.send_modify(|faults| faults.generation += 1);
    }

    /// Leads new connections to another target, as a name or an address does that was moved; resets
    /// those that are open.
    pub fn retarget(&self, target: SocketAddr) {
        self.faults.send_modify(|faults| {
            faults.target = target;
            faults.generation += 1;
        });
    }

    /// The same to a server on a loopback port.
    pub fn retarget_port(&self, port: u16) {
        self.retarget((Ipv4Addr::LOCALHOST, port).into());
    }

    /// Resets new connections (`true`), or takes them again. Open ones go on.
    pub fn refuse(&self, refuse: bool) {
        self.faults.send_modify(|faults| faults.refuse = refuse);
    }

    /// Holds bytes back, as a network that lost its route does: nothing arrives and nothing breaks.
    pub fn stall(&self, way: Way) {
        self.change(way, |link| link.stalled = true);
    }

    /// Passes on what was held back, and what follows.
    pub fn release(&self, way: Way) {
        self.change(way, |link| link.stalled = false);
    }

    /// Holds each chunk back for this long; zero ends it. Chunks follow one another, so this bounds
    /// the rate too.
    pub fn delay(&self, way: Way, delay: Duration) {
        self.change(way, |link| link.delay = delay);
    }

    /// Swallows bytes (`true`), or passes those that come from now on. A stream with a hole in it is
    /// of use only if it is cut afterwards.
    pub fn drop_bytes(&self, way: Way, dropping: bool) {
        self.change(way, |link| link.dropping = dropping);
    }

    /// Ends every fault but what was cut or swallowed.
    pub fn heal(&self) {
        self.faults.send_modify(|faults| {
            *faults = Faults { generation: faults.generation, ..Faults::none(faults.target) };
        });
    }

    /// Waits until as many bytes were swallowed, since the proxy was started and both ways together.
    pub async fn wait_swallowed(&self, bytes: u64) {
        let mut swallowed = self.swallowed.clone();
        // It fails only without the accepting task, which lives as long as this.
        drop(swallowed.wait_for(|count| *count >= bytes).await);
    }

    /// How many connections go through it.
    pub fn open_connections(&self) -> usize {
        *self.open.borrow()
    }

    /// Waits until as many connections go through it as `wanted` says.
    pub async fn wait_open(&self, wanted: impl Fn(usize) -> bool) {
        let mut open = self.open.clone();
        // It fails only without the accepting task, which lives as long as this.
        drop(open.wait_for(|count| wanted(*count)).await);
    }

    fn change(&self, way: Way, change: impl Fn(&mut Link)) {
        self.faults.send_modify(|faults| {
            if way != Way::ToClient {
                change(&mut faults.to_target);
            }
            if way != Way::ToTarget {
                change(&mut faults.to_client);
            }
        });
    }
}

// === impl Faults ===

impl Faults {
    fn none(target: SocketAddr) -> Self {
        let (to_target, to_client) = (Link::default(), Link::default());
        Self { target, refuse: false, generation: 0, to_target, to_client }
    }

    fn link(&self, way: Way) -> Link {
        match way {
            Way::ToClient => self.to_client,
            Way::ToTarget | Way::Both => self.to_target,
        }
    }
}

// === impl OpenGuard ===

impl OpenGuard {
    fn new(open: watch::Sender<usize>) -> Self {
        open.send_modify(|count| *count += 1);
        Self(open)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn accept(listener: TcpListener, shared: Shared, open: watch::Sender<usize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Reap what has ended.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                // A failed accept is the client's end before it was taken.
                let Ok((client, _)) = accepted else { continue };
                let now = *shared.faults.borrow();
                if now.refuse {
                    reset(&client);
                } else {
                    let guard = OpenGuard::new(open.clone());
                    connections.spawn(serve(client, shared.clone(), now, guard));
                }
            }
        }
    }
}

/// Passes bytes both ways until both ends are reached, one breaks, or the connection is cut.
async fn serve(mut client: TcpStream, shared: Shared, now: Faults, _guard: OpenGuard) {
    let mut cut = shared.faults.clone();
    let cut = cut.wait_for(|faults| faults.generation != now.generation);
    tokio::pin!(cut);
    let connected = tokio::select! {
        connected = TcpStream::connect(now.target) => connected,
        _ = &mut cut => return reset(&client),
    };
    let Ok(mut server) = connected else {
        return reset(&client);
    };
    // Latency that nobody asked for would be in the way of measurements.
    for stream in [&client, &server] {
        drop(stream.set_nodelay(true));
    }
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let both = async {
        tokio::try_join!(
            pump(client_read, server_write, shared.clone(), Way::ToTarget),
            pump(server_read, client_write, shared.clone(), Way::ToClient),
        )
    };
    let ended_well = tokio::select! {
        biased;
        // First, so that nothing passes after a cut.
        _ = &mut cut => false,
        result = both => result.is_ok(),
    };
    if !ended_well {
        reset(&client);
        reset(&server);
    }
}

/// Makes the close that follows a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    // It fails only on a socket that is already broken.
    drop(stream.set_zero_linger());
}

/// Passes bytes one way, then the end.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut shared: Shared,
    way: Way,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        let delay = shared.faults.borrow().link(way).delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let gone = |_| io::Error::other("the proxy is gone");
        let moving = shared.faults.wait_for(|faults| !faults.link(way).stalled).await;
        let link = moving.map_err(gone)?.link(way);
        if length == 0 {
            return to.shutdown().await;
        }
        if link.dropping {
            shared.swallowed.send_modify(|count| *count += length as u64);
        } else {
            to.write_all(&chunk[..length]).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, and a proxy before it.
    async fn echo() -> (FaultProxy, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        (proxy, tasks)
    }

    async fn send(stream: &mut TcpStream, bytes: &[u8]) {
        stream.write_all(bytes).await.unwrap();
    }

    async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(got, bytes);
    }

    async fn expect_silence(stream: &mut TcpStream) {
        let read = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    }

    async fn expect_reset(stream: &mut TcpStream) {
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn it_passes_bytes_and_ends() {
        let (proxy, _echo) = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let long = vec![7; 300_000];
        let (mut read, mut write) = stream.split();
        let write = async {
            write.write_all(&long).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let ((), length) = tokio::join!(write, read.read_to_end(&mut got));
        assert_eq!(length.unwrap(), long.len());
        assert_eq!(got, long);
        proxy.wait_open(|count| count == 0).await;
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_takes_what_is_new() {
        let (proxy, _echo) = echo().await;
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        send(&mut old, b"a").await;
        expect(&mut old, b"a").await;
        assert_eq!(proxy.open_connections(), 1);
        proxy.cut();
        expect_reset(&mut old).await;
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        send(&mut new, b"b").await;
        expect(&mut new, b"b").await;
    }

    #[tokio::test]
    async fn it_can_lead_elsewhere() {
        let (proxy, _echo) = echo().await;
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        send(&mut old, b"a").await;
        expect(&mut old, b"a").await;
        let (other, _other_echo) = echo().await;
        proxy.retarget(other.address());
        expect_reset(&mut old).await;
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        send(&mut new, b"b").await;
        expect(&mut new, b"b").await;
        assert_eq!(other.open_connections(), 1);
    }

    #[tokio::test]
    async fn refusing_resets_new_connections_only() {
        let (proxy, _echo) = echo().await;
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        send(&mut old, b"a").await;
        expect(&mut old, b"a").await;
        proxy.refuse(true);
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        expect_reset(&mut new).await;
        send(&mut old, b"b").await;
        expect(&mut old, b"b").await;
        proxy.heal();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        send(&mut new, b"c").await;
        expect(&mut new, b"c").await;
    }

    #[tokio::test]
    async fn a_stall_holds_bytes_back_and_loses_none() {
        let (proxy, _echo) = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        for way in [Way::ToTarget, Way::ToClient, Way::Both] {
            proxy.stall(way);
            send(&mut stream, b"held").await;
            expect_silence(&mut stream).await;
            send(&mut stream, b" back").await;
            proxy.release(way);
            expect(&mut stream, b"held back").await;
        }
    }

    #[tokio::test]
    async fn a_stalled_connection_can_be_cut() {
        let (proxy, _echo) = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        send(&mut stream, b"a").await;
        expect(&mut stream, b"a").await;
        proxy.stall(Way::Both);
        send(&mut stream, b"never").await;
        proxy.cut();
        expect_reset(&mut stream).await;
    }

    #[tokio::test]
    async fn dropped_bytes_never_arrive() {
        let (proxy, _echo) = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.drop_bytes(Way::ToTarget, true);
        send(&mut stream, b"lost").await;
        proxy.wait_swallowed(4).await;
        expect_silence(&mut stream).await;
        proxy.drop_bytes(Way::ToTarget, false);
        send(&mut stream, b"seen").await;
        expect(&mut stream, b"seen").await;
    }

    #[tokio::test]
    async fn a_delay_comes_before_each_chunk() {
        let (proxy, _echo) = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let delay = Duration::from_millis(20);
        proxy.delay(Way::ToClient, delay);
        let start = tokio::time::Instant::now();
        send(&mut stream, b"late").await;
        expect(&mut stream, b"late").await;
        assert!(start.elapsed() >= delay, "it cannot come earlier, however slow the machine");
    }

    #[tokio::test]
    async fn a_target_that_is_down_is_a_reset() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap()).await.unwrap();
        drop(listener);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        expect_reset(&mut stream).await;
    }
}
