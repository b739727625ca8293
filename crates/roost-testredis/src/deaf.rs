//! A proxy before a Redis server that can swallow what it publishes, and passes all else on: doorbells
//! that nobody hears. It reads the replies as RESP, so that streams stay whole. For networks that break
//! see `proxy.rs`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// A proxy in front of one server. Dropping it cuts everything.
#[derive(Debug)]
pub struct DeafProxy {
    port: u16,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    deaf: AtomicBool,
    dropped: AtomicU64,
}

// === impl DeafProxy ===

impl DeafProxy {
    /// Starts a proxy on a free loopback port before a server on another one.
    pub async fn to_port(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, Arc::clone(&state)));
        Ok(Self { port, state, _tasks: tasks })
    }

    /// Where to connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Swallows published messages (`true`), or passes them on again.
    pub fn set_deaf(&self, deaf: bool) {
        self.state.deaf.store(deaf, Ordering::Relaxed);
    }

    /// How many messages it has swallowed.
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, target: u16, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(serve(client, target, Arc::clone(&state)));
            }
        }
    }
}

async fn serve(mut client: TcpStream, target: u16, state: Arc<State>) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    for stream in [&client, &server] {
        drop(stream.set_nodelay(true));
    }
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let asked = io::copy(&mut from_client, &mut to_server);
    let answered = filter(&mut from_server, &mut to_client, &state);
    // Either end ends both.
    tokio::select! {
        _ = asked => {}
        _ = answered => {}
    }
}

/// Passes whole replies on, but for messages while it is deaf.
async fn filter(
    from: &mut (impl io::AsyncRead + Unpin),
    to: &mut (impl io::AsyncWrite + Unpin),
    state: &State,
) -> io::Result<()> {
    let mut held = vec![];
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        held.extend_from_slice(&chunk[..length]);
        let mut passed = vec![];
        let mut at = 0;
        while let Some(length) = reply(&held[at..]) {
            let whole = &held[at..at + length];
            if state.deaf.load(Ordering::Relaxed) && is_message(whole) {
                state.dropped.fetch_add(1, Ordering::Relaxed);
            } else {
                passed.extend_from_slice(whole);
            }
            at += length;
        }
        held.drain(..at);
        to.write_all(&passed).await?;
    }
}

/// Whether a reply is something published: `>3 $7 message …`, `*3 $8 smessage …`.
fn is_message(reply: &[u8]) -> bool {
    let list = matches!(reply.first(), Some(b'>' | b'*'));
    let mut lines = reply.split(|byte| *byte == b'\n').skip(2);
    let kind = lines.next().map(<[u8]>::trim_ascii_end);
    list && matches!(kind, Some(b"message" | b"smessage" | b"pmessage"))
}

/// How long the first reply is; `None` while it is not whole.
fn reply(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || -> i64 {
        let text = std::str::from_utf8(&bytes[1..line - 2]).unwrap_or_default();
        text.parse().unwrap_or(0)
    };
    let elements = match bytes[0] {
        // A text with its length before it.
        b'$' | b'=' | b'!' => {
            let length = usize::try_from(number()).map_or(line, |length| line + length + 2);
            return (bytes.len() >= length).then_some(length);
        }
        b'*' | b'>' | b'~' => number(),
        // A map has two elements an entry; an attribute belongs to the reply after it.
        b'%' => number() * 2,
        b'|' => number() * 2 + 1,
        _ => 0,
    };
    let mut at = line;
    for _ in 0..elements {
        at += reply(&bytes[at..])?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RedisServer;
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    #[test]
    fn replies_are_found_whole() {
        for whole in
            ["+OK\r\n", "$-1\r\n", "$3\r\nabc\r\n", "*2\r\n:1\r\n*1\r\n_\r\n", "%1\r\n+a\r\n:1\r\n"]
        {
            assert_eq!(reply(whole.as_bytes()), Some(whole.len()), "{whole:?}");
            for cut in 0..whole.len() {
                assert_eq!(reply(&whole.as_bytes()[..cut]), None, "{whole:?} to {cut}");
            }
            assert!(!is_message(whole.as_bytes()));
        }
        assert!(is_message(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"));
        assert!(!is_message(b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"));
    }

    #[tokio::test]
    async fn messages_are_swallowed_and_replies_are_not() {
        let redis = RedisServer::start().await.unwrap();
        let proxy = DeafProxy::to_port(redis.port()).await.unwrap();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"SUBSCRIBE c\r\n").await.unwrap();
        let mut line = String::new();
        for _ in 0..6 {
            stream.read_line(&mut line).await.unwrap();
        }
        assert!(line.ends_with(":1\r\n"), "{line:?}");
        proxy.set_deaf(true);
        assert_eq!(redis.call(&["PUBLISH", "c", "lost"]).await.unwrap(), "1");
        while proxy.dropped() == 0 {
            tokio::task::yield_now().await;
        }
        proxy.set_deaf(false);
        redis.call(&["PUBLISH", "c", "heard"]).await.unwrap();
        line.clear();
        for _ in 0..7 {
            stream.read_line(&mut line).await.unwrap();
        }
        assert_eq!(line, "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nheard\r\n");
    }
}
