//! What must fit together, and the files that the configuration names. Single values were checked
//! by their types.

use std::net::SocketAddr;
use std::time::Duration;

use roost_auth::{ApiKeys, TokenKey};

use super::layers::Layers;
use super::setting::Setting as _;
use super::{AuthMode, Config, Problem, Problems, RedisUrl, RoleChoice, Tier};
use crate::tls::TlsPorts;

/// The keys that the configuration names, read.
#[derive(Debug)]
pub struct Credentials {
    /// What device tokens are checked with; `None` where the node has no edge, or is insecure.
    pub token_key: Option<TokenKey>,
    /// Who may call; `None` where the node has no control role, or where none
    /// are asked for: insecure.
    pub api_keys: Option<ApiKeys>,
}

/// A connection that is ended sooner than this costs more than it spreads.
const MIN_AGE: Duration = Duration::from_secs(60);

pub(super) fn check(config: &mut Config, layers: &mut Layers) {
    read_redis_url(config, layers);
    check_redis(config, layers);
    check_role(config, layers);
    check_tls(config, layers);
    check_auth(config, layers);
    check_sizes(config, layers);
    check_age(config, layers);
    check_log(config, layers);
}

fn read_redis_url(config: &mut Config, layers: &mut Layers) {
    let Some(path) = &config.redis.url_file else {
        return;
    };
    if config.redis.url.is_some() {
        let problem = "only one of redis.url and redis.url_file can be given";
        return layers.wrong_value("redis.url_file", problem);
    }
    let read = std::fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"));
    match read.and_then(|text| RedisUrl::read(text.trim())) {
        Ok(url) => config.redis.url = Some(url),
        Err(problem) => layers.wrong_value("redis.url_file", &problem),
    }
}

fn check_redis(config: &Config, layers: &mut Layers) {
    let redis = &config.redis;
    if redis.cert_file.is_some() != redis.key_file.is_some() {
        let problem = "redis.cert_file and redis.key_file belong together";
        layers.wrong_value("redis.cert_file", problem);
    }
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(5));
    if redis.wait_timeout < least || redis.wait_timeout > most {
        layers.wrong_value("redis.wait_timeout", "expected 10ms to 5s");
    }
    if redis.durability == Tier::Replicated && redis.replicas == 0 {
        let problem = "\"replicated\" is worth something with at least 1 replica";
        layers.wrong_value("redis.replicas", problem);
    }
    let said = layers.is_right("redis.url") && layers.is_right("redis.url_file");
    if redis.durability != Tier::Memory && redis.url.is_none() && said {
        let problem = "without Redis nothing outlives the process: give redis.url";
        layers.wrong_value("redis.durability", problem);
    }
}

fn check_role(config: &Config, layers: &mut Layers) {
    let split = config.node.role != RoleChoice::All;
    let said = layers.is_right("redis.url") && layers.is_right("redis.url_file");
    if split && config.redis.url.is_none() && said {
        let problem = "a node of one role needs others, and they meet in Redis: give redis.url \
                       (--redis redis://HOST:6379), or let this node have both roles";
        layers.wrong_value("node.role", problem);
    }
}

fn check_tls(config: &Config, layers: &mut Layers) {
    let (edge, grpc) = (&config.edge, &config.grpc);
    for (cert_key, cert, key_key, key) in [
        ("edge.tls_cert_file", &edge.tls_cert_file, "edge.tls_key_file", &edge.tls_key_file),
        ("grpc.tls_cert_file", &grpc.tls_cert_file, "grpc.tls_key_file", &grpc.tls_key_file),
    ] {
        match (cert, key) {
            (Some(_), None) => {
                layers.wrong_value(key_key, &format!("{cert_key} needs the certificate's key"));
            }
            (None, Some(_)) => {
                layers.wrong_value(cert_key, &format!("{key_key} needs the key's certificate"));
            }
            _ => {}
        }
    }
    let role = config.node.role;
    if role.has_edge() && !edge.plain.0 && edge.tls_cert_file.is_none() {
        let problem = "without a certificate devices could not connect at all: give \
                       edge.tls_cert_file and edge.tls_key_file";
        layers.wrong_value("edge.plain", problem);
    }
    if edge.connect_rate > 0 && edge.connect_burst == 0 {
        layers.wrong_value("edge.connect_burst", "expected at least 1, or nobody is let in");
    }
    for problem in TlsPorts::of(config).err().map(|problems| problems.0).unwrap_or_default() {
        layers.problem(problem.0);
    }
}

fn check_auth(config: &Config, layers: &mut Layers) {
    let role = config.node.role;
    match config.auth.mode {
        AuthMode::Insecure if !config.edge.allow_insecure_remote.0 => {
            if role.has_edge() {
                if config.edge.plain.0 {
                    refuse_remote(layers, "edge.addr", config.edge.addr);
                }
                if config.edge.tls_cert_file.is_some() {
                    refuse_remote(layers, "edge.tls_addr", config.edge.tls_addr);
                }
            }
            if role.has_control() {
                refuse_remote(layers, "grpc.addr", config.grpc.addr);
            }
        }
        AuthMode::Insecure => {}
        AuthMode::Token => {
            if role.has_edge() && config.auth.token_key_file.is_none() {
                let problem = "devices prove themselves by tokens, and the key to check them is \
                               missing: make one with `roost token key --out token.key` and give \
                               --token-key-file token.key";
                layers.wrong_value("auth.token_key_file", problem);
            }
            if role.has_control() && config.auth.api_key_file.is_none() {
                let problem = "back ends prove themselves by API keys, and there are none: make \
                               one with `roost token api-key --out api.key` and give \
                               --api-key-file api.key";
                layers.wrong_value("auth.api_key_file", problem);
            }
        }
    }
    for (key, problem) in read_credentials(config).err().unwrap_or_default() {
        layers.wrong_value(key, &problem);
    }
}

fn refuse_remote(layers: &mut Layers, key: &'static str, addr: SocketAddr) {
    if !addr.ip().is_loopback() {
        let problem = format!(
            "with auth.mode \"insecure\" anybody who reaches {addr} is believed; listen on \
             127.0.0.1, use auth.mode \"token\", or insist by --allow-insecure-remote"
        );
        layers.wrong_value(key, &problem);
    }
}

fn check_sizes(config: &Config, layers: &mut Layers) {
    let edge = &config.edge;
    let least = edge.payload_bytes.saturating_add(edge.payload_bytes / 3 + 1024);
    if edge.frame_bytes < least {
        let problem = format!(
            "a payload of edge.payload_bytes = {} takes up to {least} bytes as base64 in a frame",
            edge.payload_bytes
        );
        layers.wrong_value("edge.frame_bytes", &problem);
    }
    if edge.send_queue_bytes < edge.frame_bytes {
        let problem =
            "expected at least edge.frame_bytes, or the largest message can never be sent";
        layers.wrong_value("edge.send_queue_bytes", problem);
    }
    for (key, value, least, most) in [
        ("edge.keepalive", edge.keepalive, 10, 20 * 60),
        ("store.lease", config.store.lease, 1, 60),
        ("shutdown.drain", config.shutdown.drain, 0, 3_600),
        ("shutdown.delay", config.shutdown.delay, 0, 600),
    ] {
        if value < Duration::from_secs(least) || value > Duration::from_secs(most) {
            layers.wrong_value(key, &format!("expected {least}s to {most}s"));
        }
    }
    if config.shutdown.grace < config.shutdown.delay + config.shutdown.drain {
        let problem = "expected at least shutdown.delay + shutdown.drain, or the drain is cut off";
        layers.wrong_value("shutdown.grace", problem);
    }
    if config.store.window == 0 {
        layers.wrong_value("store.window", "expected at least 1, or no command is ever sent");
    }
}

fn check_age(config: &Config, layers: &mut Layers) {
    let edge = &config.edge;
    if edge.max_connection_age.is_some_and(|age| age < MIN_AGE) {
        let problem = "expected at least 1m, or leave it out for never";
        layers.wrong_value("edge.max_connection_age", problem);
    }
    if edge.max_connection_age_jitter.is_some() && edge.max_connection_age.is_none() {
        let problem = "it has a meaning only beside edge.max_connection_age, which is not set";
        layers.wrong_value("edge.max_connection_age_jitter", problem);
    }
}

fn check_log(config: &Config, layers: &mut Layers) {
    if let Err(error) = roost_telemetry::check_level(&config.log.level) {
        layers.wrong_value("log.level", &error.to_string());
    }
}

type CredentialProblems = Vec<(&'static str, String)>;

fn read_credentials(config: &Config) -> Result<Credentials, CredentialProblems> {
    let role = config.node.role;
    let mut problems = vec![];
    let mut credentials = Credentials { token_key: None, api_keys: None };
    if let Some(path) = &config.auth.token_key_file
        && role.has_edge()
        && config.auth.mode == AuthMode::Token
    {
        match TokenKey::read(path) {
            Ok(key) => credentials.token_key = Some(key),
            Err(error) => problems.push(("auth.token_key_file", error.to_string())),
        }
    }
    if let Some(path) = &config.auth.api_key_file
        && role.has_control()
    {
        match ApiKeys::read(path) {
            Ok(keys) => credentials.api_keys = Some(keys),
            Err(error) => problems.push(("auth.api_key_file", error.to_string())),
        }
    }
    if problems.is_empty() { Ok(credentials) } else { Err(problems) }
}

impl Config {
    /// Reads the key files that the configuration names.
    pub fn credentials(&self) -> Result<Credentials, Problems> {
        read_credentials(self).map_err(|problems| {
            let told = |(key, problem)| Problem(format!("{key}: {problem}"));
            Problems(problems.into_iter().map(told).collect())
        })
    }
}
