//! Who should not come in: bad credentials, bad handshakes, handshakes that never end.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roost_testkit::keys::Keys;
use roost_testkit::raw::{RawSocket, upgrade_request};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::Scene;

/// A token with these claims, signed as the hub's own are.
fn signed(keys: &Keys, claims: &Value) -> String {
    let key = EncodingKey::from_secret(keys.token_key().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials() {
    let scene = Scene::start().await;
    let keys = &scene.keys;
    let exp = 4_000_000_000_u64;
    let good = keys.token("bad");
    let [head, body, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("no token")
    };
    // {"alg":"none","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let other = Keys::generate();
    let cases = [
        ("no token at all", String::new(), "CREDENTIAL_MISSING"),
        ("nonsense", "abc".to_owned(), "CREDENTIAL_INVALID"),
        ("expired", keys.expired_token("bad"), "CREDENTIAL_EXPIRED"),
        ("signed by another", other.token("bad"), "CREDENTIAL_INVALID"),
        ("for another hub", keys.token_for_audience("bad", "elsewhere"), "CREDENTIAL_INVALID"),
        ("alg none", format!("{none}.{body}."), "CREDENTIAL_INVALID"),
        ("alg none, signed", format!("{none}.{body}.{signature}"), "CREDENTIAL_INVALID"),
        ("cut", format!("{head}.{body}"), "CREDENTIAL_INVALID"),
        (
            "bad device id",
            signed(keys, &json!({"sub": "a b", "aud": "roost", "exp": exp})),
            "CREDENTIAL_INVALID",
        ),
        (
            "long device id",
            signed(keys, &json!({"sub": "a".repeat(129), "aud": "roost", "exp": exp})),
            "CREDENTIAL_INVALID",
        ),
        ("no device id", signed(keys, &json!({"aud": "roost", "exp": exp})), "CREDENTIAL_INVALID"),
        ("no end", signed(keys, &json!({"sub": "bad", "aud": "roost"})), "CREDENTIAL_INVALID"),
    ];
    for (what, token, code) in &cases {
        // Where every client can see a status: in the header.
        if !token.is_empty() {
            let mut socket = RawSocket::connect(scene.edge()).await;
            socket.send(upgrade_request(token).as_bytes()).await;
            let (status, head) = socket.response().await;
            assert_eq!(status, 401, "{what}: {head}");
        }
        // Where a browser's only way to learn of it is the connection itself.
        let mut socket = RawSocket::connect(scene.edge()).await;
        let request = upgrade_request("").replace("Authorization: Bearer \r\n", "");
        socket.send(request.as_bytes()).await;
        assert_eq!(socket.response().await.0, 101, "{what}");
        let mut hello = json!({"type": "hello"});
        if !token.is_empty() {
            hello["token"] = token.as_str().into();
        }
        socket.text(&hello.to_string()).await;
        assert_eq!(socket.end().await, (vec![(*code).to_owned()], 4401), "{what}");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_handshakes() {
    let scene = Scene::start().await;
    let good = upgrade_request(&scene.keys.token("bad"));
    let without = |name: &str| {
        let lines = good.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        lines.collect::<String>()
    };
    let cases = [
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        ("no Host", without("Host"), 400),
        ("wrong path", good.replace("/v1/connect", "/v2/connect"), 404),
        ("no path", good.replace("/v1/connect", "/"), 404),
        ("POST", good.replace("GET ", "POST "), 405),
        ("wrong version", good.replace("Version: 13", "Version: 8"), 426),
        ("no version", without("Sec-WebSocket-Version"), 426),
        ("missing key", without("Sec-WebSocket-Key"), 400),
        ("short key", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        ("no Upgrade", without("Upgrade"), 400),
        ("no Connection", without("Connection"), 400),
        (
            "unknown subprotocol",
            good.replace("Host: hub", "Host: hub\r\nSec-WebSocket-Protocol: mqtt"),
            400,
        ),
        ("no echo", good.replace("/v1/connect", "/v1/echo"), 404),
    ];
    for (what, request, expected) in cases {
        let mut socket = RawSocket::connect(scene.edge()).await;
        socket.send(request.as_bytes()).await;
        let (status, head) = socket.response().await;
        assert_eq!(status, expected, "{what}: {head}");
    }
    for (what, request) in [
        ("not HTTP", "\u{16}\u{3}\u{1}\r\n\r\n".to_owned()),
        ("endless head", format!("GET /v1/connect HTTP/1.1\r\nX: {}", "x".repeat(1 << 20))),
    ] {
        let mut socket = RawSocket::connect(scene.edge()).await;
        socket.send(request.as_bytes()).await;
        let (status, head) = socket.response().await;
        assert!(matches!(status, 0 | 400 | 431), "{what}: {status} {head}");
        socket.closed().await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_drips_in_is_closed() {
    /// What is promised, with what a machine that is busy with other things may take on top. Without
    /// the limit it would drip for minutes.
    const CLOSED_WITHIN: Duration = Duration::from_secs(5 + 55);
    let scene = Scene::start().await;
    let request = upgrade_request(&scene.keys.token("bad"));
    let began = Instant::now();
    let mut dripping = RawSocket::connect(scene.edge()).await;
    let mut silent = RawSocket::connect(scene.edge()).await;
    for byte in request.as_bytes() {
        if dripping.try_send(&[*byte]).await.is_err() {
            break;
        }
        if timeout(Duration::from_secs(1), dripping.closed()).await.is_ok() {
            break;
        }
    }
    assert!(began.elapsed() < CLOSED_WITHIN, "closed after {:?}", began.elapsed());
    silent.closed().await;
    assert!(began.elapsed() < CLOSED_WITHIN, "closed after {:?}", began.elapsed());
    scene.end().await;
}
