//! What a hub is told: every key, its type, its default and what it means, in one table. Where
//! values come from is in `layers.rs`, their types in `setting.rs`, what must fit together in
//! `check.rs`.

mod check;
mod layers;
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
pub use setting::{AuthMode, Flag, LogStyle, RedisUrl, RoleChoice};

pub(crate) use setting::duration;

use layers::Layers;
use setting::Setting;

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
        /// How many worker threads serve them. 0: one for each core.
        workers: usize = 0;
        /// Whether /v1/echo is served, without authentication, for conformance suites.
        enable_echo: Flag = Flag(false);
        /// Whether auth.mode "insecure" may listen on addresses that others can reach.
        allow_insecure_remote: Flag = Flag(false);
        /// How many connections this node holds at most.
        max_connections: u64 = 1_000_000;
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
    }
    /// Where back ends call.
    grpc: GrpcConfig {
        /// Where back ends call, by gRPC without TLS.
        addr: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7050));
    }
    /// Where probes and scrapers ask.
    admin: AdminConfig {
        /// Where /livez, /readyz and /metrics are served.
        addr: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7090));
    }
    /// The store that nodes share. Not set: this node keeps everything in its own memory.
    redis: RedisConfig {
        /// redis://[USER:PASSWORD@]HOST:PORT[/DATABASE].
        url: Option<RedisUrl> = None;
        /// A file that holds the URL, for URLs with a password.
        url_file: Option<PathBuf> = None;
        /// What every key begins with: hubs with different prefixes can share a Redis.
        prefix: String = "roost".to_owned();
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
    }
    /// How a node goes away.
    shutdown: ShutdownConfig {
        /// After SIGTERM, how long the node still accepts devices while it is already not ready.
        delay: Duration = Duration::ZERO;
        /// Over how long the devices' connections are closed, in paced batches.
        drain: Duration = Duration::from_secs(5);
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
