//! Every kind of mistake in a configuration, and what is said about it.

use std::io::Write as _;

use super::*;

fn load(
    file: &str,
    env: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Config, String> {
    let mut path = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    path.write_all(file.as_bytes()).unwrap();
    let sources = Sources {
        file: Some(path.path().to_owned()),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags.iter().map(|(key, name, value)| (*key, *name, (*value).to_owned())).collect(),
    };
    Config::load(&sources).map_err(|problems| problems.to_string())
}

const INSECURE: (&str, &str) = ("ROOST_AUTH__MODE", "insecure");

#[test]
fn each_mistake_is_named_with_its_key_its_source_and_what_is_right() {
    for (file, fragments) in [
        ("[edge]\naddr = 7080", vec!["edge.addr = \"7080\"", ".toml, line 2", "127.0.0.1:7080"]),
        (
            "[edge]\nadr = \"x\"",
            vec!["edge.adr", "line 2", "no such key", "did you mean edge.addr?"],
        ),
        ("[egde]\naddr = \"x\"", vec!["egde.addr", "did you mean edge.addr?"]),
        ("addr = 1", vec!["addr", "line 1", "no such key"]),
        ("[edge]\nkeepalive = \"10\"", vec!["edge.keepalive = \"10\"", "\"10s\""]),
        ("[edge]\nkeepalive = \"1s\"", vec!["edge.keepalive", "expected 10s to 1200s"]),
        ("[edge]\nworkers = -1", vec!["edge.workers = \"-1\"", "whole number"]),
        ("[edge]\nplain = false", vec!["edge.plain", "edge.tls_cert_file"]),
        ("[edge]\ntls_key_file = \"/none\"", vec!["edge.tls_cert_file", "the key's certificate"]),
        ("[grpc]\ntls_cert_file = \"/none\"", vec!["grpc.tls_key_file", "the certificate's key"]),
        (
            "[grpc]\ntls_cert_file = \"/none/c\"\ntls_key_file = \"/none/k\"",
            vec!["grpc.tls_cert_file", "cannot read /none/c"],
        ),
        (
            "[edge]\nallowed_origins = \"https://a/b\"",
            vec!["edge.allowed_origins", "without paths"],
        ),
        (
            "[edge]\nallowed_origins = \"*\"",
            vec!["edge.allowed_origins", "https://app.example.com"],
        ),
        ("[edge]\nconnect_burst = 0", vec!["edge.connect_burst", "at least 1"]),
        ("[edge]\nenable_echo = \"yes\"", vec!["edge.enable_echo", "true or false"]),
        ("[edge]\naddr = [1]", vec!["edge.addr", "line 2", "found array"]),
        ("[edge]\npayload_bytes = 1_000_000", vec!["edge.frame_bytes", "base64"]),
        ("[node]\nid = \"a b\"", vec!["node.id", "node id has the character ' '"]),
        ("[node]\nrole = \"leader\"", vec!["node.role", "all, edge, control"]),
        ("[node]\nrole = \"edge\"", vec!["node.role", "--redis redis://HOST:6379"]),
        ("[redis]\nurl = \"hubs:secret@h\"", vec!["redis.url", "redis://127.0.0.1:6379"]),
        ("[redis]\nurl_file = \"/none\"", vec!["redis.url_file", "cannot read it"]),
        ("[redis]\ndurability = \"replicated\"", vec!["redis.durability", "give redis.url"]),
        ("[log]\nlevel = \"loud\"", vec!["log.level", "info, debug or trace"]),
        ("[shutdown]\ngrace = \"1s\"", vec!["shutdown.grace", "drain is cut off"]),
        (
            "[tracing]\notlp_endpoint = \"https://c:4317\"",
            vec!["tracing.otlp_endpoint", "http://otel-collector:4317", "asks for TLS"],
        ),
        (
            "[tracing]\notlp_endpoint = \"http://c\"",
            vec!["tracing.otlp_endpoint", "http://HOST:PORT"],
        ),
        ("[tracing]\nsample = 1.5", vec!["tracing.sample = \"1.5\"", "from 0 to 1"]),
        ("[tracing]\nsample = nan", vec!["tracing.sample", "from 0 to 1"]),
        ("[edge\n", vec![".toml, line 1"]),
        ("[edge]\naddr = \"0.0.0.0:7080\"", vec!["edge.addr", "--allow-insecure-remote"]),
        ("[grpc]\naddr = \"0.0.0.0:7050\"", vec!["grpc.addr", "anybody who reaches"]),
    ] {
        let error = load(file, &[INSECURE], &[]).expect_err(file);
        for fragment in fragments {
            assert!(error.contains(fragment), "{file:?}: {fragment:?} not in\n{error}");
        }
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn token_mode_says_which_commands_make_its_keys() {
    let error = load("", &[], &[]).unwrap_err();
    for fragment in
        ["auth.token_key_file", "roost token key", "auth.api_key_file", "roost token api-key"]
    {
        assert!(error.contains(fragment), "{error}");
    }
    let env = [("ROOST_AUTH__TOKEN_KEY_FILE", "/none/a"), ("ROOST_AUTH__API_KEY_FILE", "/none/b")];
    let error = load("", &env, &[]).unwrap_err();
    assert!(error.contains("variable ROOST_AUTH__TOKEN_KEY_FILE"), "{error}");
    assert!(error.contains("/none/b"), "{error}");
}

#[test]
fn every_mistake_is_told_at_once() {
    let flags = [("grpc.addr", "--grpc-addr", "here")];
    let env = [INSECURE, ("ROOST_LOG__FORMAT", "xml"), ("ROOST_EDGE_ADDR", "127.0.0.1:1")];
    let error = load("[store]\nwindow = 0\nlese = \"1s\"", &env, &flags).unwrap_err();
    for fragment in [
        "grpc.addr = \"here\" (flag --grpc-addr)",
        "log.format = \"xml\" (variable ROOST_LOG__FORMAT)",
        "did you mean ROOST_EDGE__ADDR?",
        "store.window",
        "did you mean store.lease?",
    ] {
        assert!(error.contains(fragment), "{fragment:?} not in\n{error}");
    }
    assert_eq!(error.lines().count(), 6, "{error}");
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let file =
        "[edge]\naddr = \"127.0.0.1:1\"\nkeepalive = \"20s\"\n[grpc]\naddr = \"127.0.0.1:1\"";
    let env = [
        INSECURE,
        ("ROOST_EDGE__ADDR", "127.0.0.1:2"),
        ("ROOST_GRPC__ADDR", "127.0.0.1:2"),
        ("ROOST_SERVICE_HOST", "10.0.0.1"),
        ("ROOST_SERVER", "http://hub"),
    ];
    let config = load(file, &env, &[("edge.addr", "--edge-addr", "127.0.0.1:3")]).unwrap();
    assert_eq!(config.edge.addr.port(), 3);
    assert_eq!(config.grpc.addr.port(), 2);
    assert_eq!(config.edge.keepalive, Duration::from_secs(20));
}

#[test]
fn what_is_printed_can_be_read_again_and_hides_passwords() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "redis://hub:secret@redis:6379/1").unwrap();
    let path = file.path().to_str().unwrap();
    let config = load("", &[INSECURE, ("ROOST_REDIS__URL_FILE", path)], &[]).unwrap();
    assert_eq!(config.redis.url.as_ref().unwrap().0, "redis://hub:secret@redis:6379/1");
    let printed = config.to_toml();
    assert!(printed.contains("url = \"redis://hub:***@redis:6379/1\""), "{printed}");
    assert!(!printed.contains("secret") && !format!("{config:?}").contains("secret"));
    assert_eq!(config.to_json()["edge"]["addr"], "127.0.0.1:7080");
    assert_eq!(config.to_json()["edge"]["keepalive"], "1m");

    let plain = load("", &[INSECURE], &[]).unwrap();
    assert_eq!(load(&plain.to_toml(), &[], &[]).unwrap(), plain);
}
