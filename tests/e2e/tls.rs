//! TLS on the ports for devices and back ends: both versions, certificates that change under open
//! connections, files that are not good, bytes that are no TLS, and mistakes that are named.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use roost_client::backend::Backend;
use roost_client::device::{OpenError, Url};
use roost_proto::control::v1::CommandState;
use roost_testkit::backend::{TestBackend, command};
use roost_testkit::certificates::{Authority, MountedSecret};
use roost_testkit::device::TestDevice;
use roost_testkit::eventually;
use roost_testkit::keys::Keys;
use roost_testkit::process::{HubProcess, NodeOptions, Signal, roost};
use roost_testkit::raw::{RawSocket, frame, upgrade_request};
use roost_types::{Payload, Text};
use roost_wire::ws::Opcode;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long a change of files may take to be seen: they are looked at every 5 s, twice if not good.
const SEEN: Duration = Duration::from_secs(60);

/// A hub with TLS on both ports.
struct Scene {
    hub: HubProcess,
    keys: Arc<Keys>,
    authority: Authority,
    secret: MountedSecret,
}

// === impl Scene ===

impl Scene {
    fn start() -> Self {
        let authority = Authority::generate();
        let secret = MountedSecret::mount(&authority.sign(1));
        let keys = Arc::new(Keys::generate());
        let (cert, key) = (secret.cert_file(), secret.key_file());
        let hub = HubProcess::start(
            &keys,
            &NodeOptions {
                env: &[
                    ("ROOST_EDGE__TLS_ADDR", "127.0.0.1:0"),
                    ("ROOST_EDGE__TLS_CERT_FILE", &cert),
                    ("ROOST_EDGE__TLS_KEY_FILE", &key),
                    ("ROOST_GRPC__TLS_CERT_FILE", &cert),
                    ("ROOST_GRPC__TLS_KEY_FILE", &key),
                ],
                ..NodeOptions::default()
            },
        );
        Self { hub, keys, authority, secret }
    }

    fn edge(&self) -> SocketAddr {
        self.hub.tls_address()
    }

    fn url(&self) -> Url {
        let url: Url = format!("wss://localhost:{}", self.edge().port()).parse().unwrap();
        url.trusting(self.authority.trust())
    }

    async fn device(&self, name: &str) -> TestDevice {
        TestDevice::open_at(&self.url(), &self.keys.token(name), &[]).await.unwrap()
    }

    async fn backend(&self) -> TestBackend {
        let endpoint = format!("https://{}", self.hub.grpc());
        let trust = self.authority.trust();
        let key = self.keys.api_key();
        let backend = Backend::connect_trusting(&endpoint, key, Some(&trust)).await.unwrap();
        TestBackend { backend }
    }

    /// A command to a device and its answer.
    async fn answers(&self, backend: &TestBackend, name: &str, device: &mut TestDevice) {
        let run = backend.run(command(name, "hello"));
        let answering = async {
            let got = device.command().await;
            device.succeed(&got, None).await;
        };
        let (done, ()) = tokio::join!(run, answering);
        assert_eq!(done.state(), CommandState::Succeeded);
    }

    async fn counted(&self, name: &str, labels: &[&str]) -> f64 {
        self.hub.admin().metrics().await.sum(name, labels)
    }

    /// Waits until a metric has this value.
    async fn until_counted(&self, name: &str, labels: &[&str], expected: f64) {
        let what = format!("{name}{labels:?} is {expected}");
        let there = async || (self.counted(name, labels).await == expected).then_some(());
        eventually(&what, SEEN, there).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_large_messages_pass_both_ports() {
    let scene = Scene::start();
    let backend = scene.backend().await;
    let mut device = scene.device("d").await;
    scene.answers(&backend, "d", &mut device).await;
    // Several records each way.
    device.subscribe("big").await.unwrap();
    let text = format!("{:?}", "x".repeat(65_000));
    let payload = Payload::json(Text::from(text.as_str()));
    for _ in 0..20 {
        device.publish("big", payload.clone()).await.unwrap();
    }
    for _ in 0..20 {
        let message = device.message().await;
        assert_eq!(message.payload, payload);
    }
    // A close from either side is one, and no reset.
    device.connection.close().await;
    let second = scene.device("d").await;
    let third = scene.device("d").await;
    assert_eq!(second.end().await.1.code, 4409);
    drop(third);
}

/// Upgrades and says hello on a TLS stream of one version.
async fn speaks(scene: &Scene, version: &'static SupportedProtocolVersion, name: &str) {
    let mut stream = scene.authority.connect(scene.edge(), &[version]).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    let hello = frame(Opcode::Text, br#"{"type":"hello"}"#);
    // In one go: what comes behind the request is not to be lost on the way through hyper.
    let both = [upgrade_request(&scene.keys.token(name)).into_bytes(), hello].concat();
    stream.write_all(&both).await.unwrap();
    let mut came = vec![];
    while !String::from_utf8_lossy(&came).contains("\"welcome\"") {
        assert!(stream.read_buf(&mut came).await.unwrap() > 0, "the hub closed: {came:?}");
    }
    assert!(came.starts_with(b"HTTP/1.1 101"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_1_2_and_1_3_are_spoken_and_nothing_older() {
    let scene = Scene::start();
    speaks(&scene, &TLS12, "old").await;
    speaks(&scene, &TLS13, "new").await;
    // A ClientHello of TLS 1.1 is answered with the alert protocol_version.
    let mut hello = vec![1, 0, 0, 53, 3, 2];
    hello.extend([7; 32]);
    // No session; two cipher suites; no compression; signature_algorithms.
    hello.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let record = [&[22, 3, 1, 0, u8::try_from(hello.len()).unwrap()][..], &hello].concat();
    let mut socket = tokio::net::TcpStream::connect(scene.edge()).await.unwrap();
    socket.write_all(&record).await.unwrap();
    let mut answer = vec![];
    socket.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70]);
    scene.until_counted("roost_ws_connects_total", &["tls"], 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_changes_under_open_connections() {
    let mut scene = Scene::start();
    let first = scene.authority.sign(1);
    assert_ne!(scene.authority.shown(scene.edge()).await, first.der(), "another key");
    let backend = scene.backend().await;
    let mut device = scene.device("d").await;
    let expiry = "roost_tls_cert_expiry_timestamp_seconds";
    assert_eq!(scene.counted(expiry, &["edge"]).await, 32_472_144_000.0, "2999-01-01");

    // By itself, and by SIGHUP.
    for (serial, year, signal) in [(2, 2998, None), (3, 2997, Some(Signal::HUP))] {
        let next = scene.authority.sign_until(serial, year);
        scene.secret.change(&next.cert, &next.key);
        if let Some(signal) = signal {
            scene.hub.signal(signal);
        }
        let reloads = f64::from(serial - 1);
        let labels: &[&[&str]] = &[&["edge", "reloaded"], &["grpc", "reloaded"]];
        for labels in labels {
            scene.until_counted("roost_tls_cert_reloads_total", labels, reloads).await;
        }
        assert_eq!(scene.authority.shown(scene.edge()).await, next.der());
        let grpc = scene.hub.grpc().parse().unwrap();
        assert_eq!(scene.authority.shown(grpc).await, next.der());
        // The old connections live on, and new ones come.
        scene.answers(&backend, "d", &mut device).await;
        drop(scene.device(&format!("new-{serial}")).await);
    }
    assert_eq!(scene.counted(expiry, &["grpc"]).await, 32_409_072_000.0, "2997-01-01");
    assert_eq!(scene.counted("roost_tls_cert_reloads_total", &["failed"]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_not_good_are_kept_out() {
    let mut scene = Scene::start();
    let in_use = scene.authority.shown(scene.edge()).await;
    let (good, other) = (scene.authority.sign(2), scene.authority.sign(3));
    let expired = scene.authority.sign_until(4, 2001);
    let mut failed = 0.0;
    for (cert, key) in [
        ("garbage", "garbage"),
        ("", ""),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", good.key.as_str()),
        (good.cert.as_str(), other.key.as_str()),
        (good.cert.as_str(), "no key"),
        (expired.cert.as_str(), expired.key.as_str()),
    ] {
        scene.secret.change(cert, key);
        scene.hub.signal(Signal::HUP);
        failed += 1.0;
        scene.until_counted("roost_tls_cert_reloads_total", &["edge", "failed"], failed).await;
        assert_eq!(scene.authority.shown(scene.edge()).await, in_use);
    }
    scene.secret.change(&good.cert, &good.key);
    scene.hub.signal(Signal::HUP);
    scene.until_counted("roost_tls_cert_reloads_total", &["edge", "reloaded"], 1.0).await;
    assert_eq!(scene.authority.shown(scene.edge()).await, good.der());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_tls_end_their_own_connection_only() {
    let scene = Scene::start();
    let backend = scene.backend().await;
    let mut neighbour = scene.device("neighbour").await;
    // Two that say nothing, or nothing whole: closed within the 5 s of a handshake.
    let mut silent = RawSocket::connect(scene.edge()).await;
    let mut half = RawSocket::connect(scene.edge()).await;
    half.send(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await;
    for bytes in [
        &b"\x16\x03\x01\xff\xff"[..],
        b"\x17\x03\x03\x00\x05hello",
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
    ] {
        let mut socket = RawSocket::connect(scene.edge()).await;
        socket.send(bytes).await;
        socket.closed().await;
        scene.answers(&backend, "neighbour", &mut neighbour).await;
    }
    let mut plain = RawSocket::connect(scene.edge()).await;
    plain.send(upgrade_request(&scene.keys.token("plain")).as_bytes()).await;
    let (status, _) = plain.response().await;
    assert_eq!(status, 400);
    plain.closed().await;
    // Broken within an open connection.
    let mut stream = scene.authority.connect(scene.edge(), &[&TLS13]).await.unwrap();
    stream.write_all(upgrade_request(&scene.keys.token("broken")).as_bytes()).await.unwrap();
    let mut came = vec![];
    while !came.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut came).await.unwrap() > 0);
    }
    let (mut socket, _) = stream.into_inner();
    socket.write_all(b"\x17\x03\x03\x00\x20 this is not what they agreed on").await.unwrap();
    socket.read_to_end(&mut came).await.unwrap();
    silent.closed().await;
    half.closed().await;
    scene.answers(&backend, "neighbour", &mut neighbour).await;
    scene.until_counted("roost_ws_connects_total", &["tls"], 7.0).await;
    scene.until_counted("roost_ws_connects_total", &["timeout"], 2.0).await;
    scene.until_counted("roost_ws_connections", &[], 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_does_not_read_is_closed_over_tls_too() {
    let scene = Scene::start();
    let mut device = scene.device("talker").await;
    let mut stream = scene.authority.connect(scene.edge(), &[&TLS13]).await.unwrap();
    let hello = br#"{"type":"hello","subscriptions":[{"topic":"flood"}]}"#;
    let request = upgrade_request(&scene.keys.token("deaf")).into_bytes();
    stream.write_all(&[request, frame(Opcode::Text, hello)].concat()).await.unwrap();
    let mut came = vec![];
    while !String::from_utf8_lossy(&came).contains("\"welcome\"") {
        assert!(stream.read_buf(&mut came).await.unwrap() > 0);
    }
    // More than the socket's buffers and the queue hold; the rest is dropped, counted and told.
    let text = format!("{:?}", "x".repeat(60_000));
    let dropped = async {
        loop {
            let payload = Payload::json(Text::from(text.as_str()));
            device.publish("flood", payload).await.unwrap();
            if scene.counted("roost_messages_dropped_total", &["queue_full"]).await > 0.0 {
                return;
            }
        }
    };
    tokio::time::timeout(SEEN, dropped).await.unwrap();
    // Once it reads again, every byte is in order: frames are whole, and the gap is told.
    let mut gap = false;
    while !gap {
        came.clear();
        assert!(stream.read_buf(&mut came).await.unwrap() > 0);
        gap = String::from_utf8_lossy(&came).contains("\"gap\"");
    }
}

fn opened<T>(opened: Result<T, OpenError>) -> String {
    opened.err().expect("it was a mistake").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_named() {
    let scene = Scene::start();
    let (edge, plain) = (scene.edge().port(), scene.hub.edge_address().port());
    let token = scene.keys.token("d");
    let open = async |url: String, authority: &Authority| {
        let url = url.parse::<Url>().unwrap().trusting(authority.trust());
        opened(TestDevice::open_at(&url, &token, &[]).await)
    };
    let stranger = Authority::generate();
    for (url, authority, told) in [
        (format!("wss://localhost:{edge}"), &stranger, "a CA that is not trusted here"),
        (format!("wss://localhost:{plain}"), &scene.authority, "does not speak TLS"),
        (format!("ws://localhost:{edge}"), &scene.authority, "this port speaks TLS"),
    ] {
        let said = open(url.clone(), authority).await;
        assert!(said.contains(told), "{url}: {said}");
    }

    let grpc = scene.hub.grpc();
    let without_tls = HubProcess::start(&scene.keys, &NodeOptions::default());
    let ca = scene.authority.ca_file();
    let wrong_ca = stranger.ca_file();
    for (server, ca, told) in [
        (format!("https://{grpc}"), &ca, ""),
        (format!("https://{grpc}"), &wrong_ca, "a CA that is not trusted here"),
        (format!("https://{}", without_tls.grpc()), &ca, "does not speak TLS"),
        (format!("http://{grpc}"), &ca, "this port speaks TLS"),
    ] {
        let mut command = roost();
        command.args(["device", "list", "--server", &server, "--ca-file"]).arg(ca);
        command.env("ROOST_API_KEY_FILE", scene.keys.api_key_file());
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains(told), "{server}: {said}");
        let expected = if told.is_empty() { 0 } else { 4 };
        assert_eq!(output.status.code(), Some(expected), "{server}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_may_have_tls_only_and_says_what_its_files_lack() {
    let authority = Authority::generate();
    let secret = MountedSecret::mount(&authority.sign(1));
    let keys = Keys::generate();
    let start = |cert: &str, key: &str| {
        let mut command = roost();
        command.args(["config", "check"]);
        command.env("ROOST_AUTH__TOKEN_KEY_FILE", keys.token_key_file());
        command.env("ROOST_AUTH__API_KEY_FILE", keys.api_key_file());
        command.env("ROOST_EDGE__PLAIN", "false");
        for (name, value) in
            [("ROOST_EDGE__TLS_CERT_FILE", cert), ("ROOST_EDGE__TLS_KEY_FILE", key)]
        {
            if !value.is_empty() {
                command.env(name, value);
            }
        }
        let output = command.output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let (cert, key) = (secret.cert_file(), secret.key_file());
    for (given, told) in [
        (("", ""), "edge.plain"),
        ((cert.as_str(), ""), "edge.tls_key_file"),
        (("", key.as_str()), "edge.tls_cert_file"),
        ((key.as_str(), key.as_str()), "has no certificate in PEM"),
        ((cert.as_str(), cert.as_str()), "has no private key in PEM"),
        (("/none/tls.crt", key.as_str()), "cannot read /none/tls.crt"),
    ] {
        let said = start(given.0, given.1);
        assert!(said.contains(told), "{given:?}: {said}");
    }
    let hub = HubProcess::start(
        &keys,
        &NodeOptions {
            env: &[
                ("ROOST_EDGE__PLAIN", "false"),
                ("ROOST_EDGE__TLS_ADDR", "127.0.0.1:0"),
                ("ROOST_EDGE__TLS_CERT_FILE", &cert),
                ("ROOST_EDGE__TLS_KEY_FILE", &key),
            ],
            ..NodeOptions::default()
        },
    );
    assert_eq!(authority.shown(hub.tls_address()).await, authority.shown(hub.tls_address()).await);
}
