//! What a hub is told: every key, its type, its default and what it means, in one table. Where
//! values come from is in `layers.rs`, their types in `setting.rs`, what must fit together in
//! `check.rs`.

mod check;
mod layers;
mod markdown;
mod nearest;
mod print;
mod setting;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use roost_types::NodeId;

pub use check::Credentials;
pub use layers::{Problem, Problems, Sources};
pub use setting::{
    AuthMode, CollectorUrl, Flag, LogStyle, Origins, RedisUrl, RoleChoice, Share, Tier,
};

pub(crate) use setting::duration;

use layers::Layers;
use setting::Setting;

use crate::tls::CertificateFiles;

/// Makes the structs, the list of keys, the reader and the printer of one table.
macro_rules! sections {
    ($(#[doc = $about:literal] $section:ident: $Section:ident {
        $(#[doc = $doc:literal] $key:ident: $type:ty = $default:expr;)*
    })*) => {
        /// A hub's whole configuration. Every value has its type; what must fit together was
        /// checked when it was loaded.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $(#[doc = $about] pub $section: $Section,)*
        }

        $(
            #[doc = $about]
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Section {
                $(#[doc = $doc] pub $key: $type,)*
            }
        )*

        /// Every key, `section.key`.
        pub const KEYS: &[&str] = &[$($(
            concat!(stringify!($section), ".", stringify!($key)),
        )*)*];

        impl Default for Config {
            fn default() -> Self {
                Self { $($section: $Section { $($key: $default,)* },)* }
            }
        }

        impl Config {
            /// Reads every key; what is wrong is noted in `layers`, and its default stands in.
            fn read(layers: &mut Layers) -> Self {
                Self { $($section: $Section { $(
                    $key: {
                        let key = concat!(stringify!($section), ".", stringify!($key));
                        layers.take(key).unwrap_or($default)
                    },
                )* },)* }
            }

            /// Every key with its section, what it means and its value as TOML (`None`: not set).
            fn rows(&self) -> Vec<print::Row> {
                vec![$($(print::Row {
                    section: stringify!($section),
                    about: $about,
                    key: stringify!($key),
                    doc: $doc,
                    kind: <$type as Setting>::kind(),
                    value: self.$section.$key.to_toml(),
                },)*)*]
            }
        }
    };
}

sections! {
    /// Who this node is.
    node: NodeConfig {
        /// Its name, unique among the nodes that share a Redis. Not set: a random one.
        id: Option<NodeId> = None;
        /// What it does: "all", "edge" (devices connect) or "control" (back ends call).
        role: RoleChoice = RoleChoice::All;
        /// Where others reach it, as it announces itself. Not set: the address that it listens on.
        address: Option<String> = None;
    }
    /// Where devices connect, and what they may do.
    edge: EdgeSection {
        /// Where devices connect.
        addr: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7080));
        /// Whether `edge.addr` is listened on, without TLS. false leaves `edge.tls_addr`, which needs a certificate.
        plain: Flag = Flag(true);
        /// Where devices connect by TLS, once there is a certificate.
        tls_addr: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7443));
        /// The certificate and those that lead to a root, in PEM. Not set: no TLS. Looked at every 5 s and on SIGHUP.
        tls_cert_file: Option<PathBuf> = None;
        /// The certificate's key, in PEM.
        tls_key_file: Option<PathBuf> = None;
        /// Which pages may connect: `Origin`s such as `https://app.example.com`, with commas between. Not set: any.
        allowed_origins: Option<Origins> = None;
        /// How many worker threads serve them. 0: one for each core.
        workers: usize = 0;
        /// Whether /v1/echo is served, without authentication, for conformance suites.
        enable_echo: Flag = Flag(false);
        /// Whether auth.mode "insecure" may listen on addresses that others can reach.
        allow_insecure_remote: Flag = Flag(false);
        /// How many connections this node holds at most.
        max_connections: u64 = 1_000_000;
        /// How many connections are let in a second; those beyond get 503 and are to try again later. 0: no limit.
        connect_rate: u32 = 5_000;
        /// How many may come at once after a rest, above `edge.connect_rate`.
        connect_burst: u32 = 10_000;
        /// The most decoded bytes of one payload.
        payload_bytes: usize = 65_536;
        /// The most bytes of one WebSocket message.
        frame_bytes: usize = 131_072;
        /// The most subscriptions of one device.
        subscriptions: usize = 1_000;
        /// The most bytes that wait for one device's socket before it counts as too slow.
        send_queue_bytes: usize = 1 << 20;
        /// The silence after which the hub pings, where the device asks for nothing else.
        keepalive: Duration = Duration::from_secs(60);
        /// After how long a connected device is asked to connect again, so that devices spread over the nodes that there are. Not set: never.
        max_connection_age: Option<Duration> = None;
        /// Up to how much later, at random for each connection. Not set: a quarter of `edge.max_connection_age`.
        max_connection_age_jitter: Option<Duration> = None;
    }
    /// Where back ends call.
    grpc: GrpcConfig {
        /// Where back ends call, by gRPC; without TLS, unless there is a certificate.
        addr: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7050));
        /// The certificate and those that lead to a root, in PEM. With it nobody gets in without TLS. Looked at every 5 s and on SIGHUP.
        tls_cert_file: Option<PathBuf> = None;
        /// The certificate's key, in PEM.
        tls_key_file: Option<PathBuf> = None;
    }
    /// Where probes and scrapers ask.
    admin: AdminConfig {
        /// Where /livez, /readyz, /metrics and /log-level are served. The port asks nobody who they are.
        addr: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7090));
    }
    /// The store that nodes share. Not set: this node keeps everything in its own memory.
    redis: RedisConfig {
        /// redis://[USER:PASSWORD@]HOST:PORT[/DATABASE], redis-sentinel://[USER:PASSWORD@]HOST:26379,HOST/MASTER[/DATABASE] or redis-cluster://[USER:PASSWORD@]HOST:6379,HOST; rediss://, rediss-sentinel:// and rediss-cluster:// with TLS.
        url: Option<RedisUrl> = None;
        /// A file that holds the URL, for URLs with a password.
        url_file: Option<PathBuf> = None;
        /// What every key begins with: hubs with different prefixes can share a Redis.
        prefix: String = "roost".to_owned();
        /// Who signed the servers' certificates, in PEM. Not set: whom the system trusts.
        ca_file: Option<PathBuf> = None;
        /// The certificate that proves this node to the servers, in PEM.
        cert_file: Option<PathBuf> = None;
        /// Its key, in PEM.
        key_file: Option<PathBuf> = None;
        /// This node's user at the sentinels; the URL's is for the master.
        sentinel_user: Option<String> = None;
        /// A file that holds its password there.
        sentinel_password_file: Option<PathBuf> = None;
        /// What an accepted command survives: "memory" (nothing: one Redis has it), "replicated" (a failover to a replica that confirmed it: WAIT), "fsync" (a crash: WAITAOF, from Redis 7.2 on).
        durability: Tier = Tier::Memory;
        /// How many replicas confirm it, above "memory".
        replicas: u32 = 1;
        /// How long they may take; after it the sender is told that it is not known, unless it asked for less.
        wait_timeout: Duration = Duration::from_millis(500);
    }
    /// Who is believed.
    auth: AuthConfig {
        /// "token", or "insecure": devices are believed what they claim, back ends need no key.
        mode: AuthMode = AuthMode::Token;
        /// The key that signs device tokens. `roost token key` makes one.
        token_key_file: Option<PathBuf> = None;
        /// The keys of back ends. `roost token api-key` makes one.
        api_key_file: Option<PathBuf> = None;
        /// The `aud` that device tokens must have.
        audience: String = roost_auth::DEFAULT_AUDIENCE.to_owned();
    }
    /// What the store keeps, and for how long.
    store: StoreConfig {
        /// How long a node counts as alive after a heartbeat.
        lease: Duration = Duration::from_secs(10);
        /// How many commands may be with one device, unfinished, before further ones wait.
        window: u32 = 64;
        /// How many unfinished commands one device's mailbox holds.
        mailbox_commands: u32 = 1_000;
        /// How many payload bytes one device's mailbox holds.
        mailbox_bytes: u64 = 4 << 20;
        /// How long a finished command is remembered.
        retention: Duration = Duration::from_secs(24 * 3600);
        /// How long a disconnected device is remembered.
        device_retention: Duration = Duration::from_secs(7 * 24 * 3600);
        /// How many entries of what happened to it are kept for each device; 0 for none.
        history: u32 = 64;
    }
    /// How a node goes away.
    shutdown: ShutdownConfig {
        /// After SIGTERM, how long the node still accepts devices while it is already not ready.
        delay: Duration = Duration::ZERO;
        /// Over how long the devices' connections are closed, in paced batches.
        drain: Duration = Duration::from_secs(5);
        /// How many devices a second all nodes together send away at the most, in drains and in rebalancing: drains of several nodes at once do not stack. Where it holds a shutdown back until `shutdown.grace` is near, the rest goes at once. 0: no such bound.
        shed_rate: u32 = 1_000;
        /// How long everything may take before the process ends all the same.
        grace: Duration = Duration::from_secs(25);
    }
    /// What is logged, to standard error.
    log: LogConfig {
        /// "human" or "json".
        format: LogStyle = LogStyle::Human;
        /// "error", "warn", "info", "debug" or "trace", or a list such as `info,roost_edge=debug`.
        level: String = "info".to_owned();
    }
    /// Where the spans of traced commands go.
    tracing: TracingSection {
        /// `http://HOST:PORT` of a collector that takes OTLP over gRPC (port 4317 by custom). Not set: no tracing.
        otlp_endpoint: Option<CollectorUrl> = None;
        /// Which share of the commands whose caller names no trace is traced, 0 to 1. A `traceparent` in the call's metadata decides for itself.
        sample: Share = Share(0.01);
    }
}

impl EdgeSection {
    /// Where the certificate is, if there is one.
    pub(crate) fn certificate_files(&self) -> Option<CertificateFiles> {
        certificate_files(self.tls_cert_file.as_ref(), self.tls_key_file.as_ref())
    }
}

impl GrpcConfig {
    /// Where the certificate is, if there is one.
    pub(crate) fn certificate_files(&self) -> Option<CertificateFiles> {
        certificate_files(self.tls_cert_file.as_ref(), self.tls_key_file.as_ref())
    }
}

fn certificate_files(cert: Option<&PathBuf>, key: Option<&PathBuf>) -> Option<CertificateFiles> {
    Some(CertificateFiles { cert: cert?.clone(), key: key?.clone() })
}

impl Config {
    /// Puts file, environment and flags together, the later winning, and checks everything. All that
    /// is wrong is told at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let (config, problems) = Self::read_anyway(sources);
        problems.map_or(Ok(config), Err)
    }

    /// The same, with defaults for what is wrong: to be shown, not to be used.
    pub fn read_anyway(sources: &Sources) -> (Self, Option<Problems>) {
        let mut layers = Layers::new(sources);
        let mut config = Self::read(&mut layers);
        check::check(&mut config, &mut layers);
        (config, layers.finish())
    }
}
