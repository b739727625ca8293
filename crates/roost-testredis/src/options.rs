//! How a server is set up, as the lines of its redis.conf. Running it is in `server.rs`.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use crate::Certificates;

/// How a server is set up. The default: no persistence, no limit, no password, no TLS.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Keep an append-only file, so that data survives [`crate::RedisServer::kill`]. Off: a restarted
    /// server is empty. It is fsynced at every write, unless `extra` says `appendfsync`.
    pub appendonly: bool,
    /// `maxmemory` in bytes, with `noeviction`; `None` is no limit.
    pub maxmemory: Option<u64>,
    /// `requirepass`: the password of the default user.
    pub password: Option<String>,
    /// A further user, which [`crate::RedisServer::url`] names.
    pub user: Option<User>,
    /// Serve TLS on a port of its own, which [`crate::RedisServer::url`] names (`rediss://`).
    pub tls: Option<Arc<Certificates>>,
    /// Demand a client certificate of TLS clients.
    pub client_certificate: bool,
    /// Further directives of redis.conf, such as `("min-replicas-to-write", "1")`.
    pub extra: Vec<(String, String)>,
}

/// A user of the server's access control list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
    /// What it may do: `~roost:* &roost:* +@all`.
    pub rules: String,
}

/// What kind of server it is.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// On its own, or of a master and its replicas.
    Server(RedisOptions),
    /// A node of a cluster.
    Cluster(RedisOptions),
    /// A sentinel, with these directives.
    Sentinel(Vec<String>),
}

/// What else goes into the file.
pub(crate) struct Place<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    pub(crate) bus_port: u16,
}

// === impl RedisOptions ===

impl RedisOptions {
    /// Adds a directive.
    #[must_use]
    pub fn with(mut self, directive: &str, value: &str) -> Self {
        self.extra.push((directive.to_owned(), value.to_string()));
        self
    }

    fn lines(&self, place: &Place<'_>) -> Vec<String> {
        let mut lines = vec![
            "save \"\"".to_owned(),
            format!("appendonly {}", if self.appendonly { "yes" } else { "no" }),
            "appendfsync always".to_owned(),
            format!("maxmemory {}", self.maxmemory.unwrap_or(0)),
            "maxmemory-policy noeviction".to_owned(),
            // A replica that connects is served now and not in 5 s.
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        if let Some(password) = &self.password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("masterauth {password}"));
        }
        if let Some(User { name, password, rules }) = &self.user {
            lines.push(format!("user {name} on >{password} {rules}"));
        }
        if let Some(tls) = &self.tls {
            let client = if self.client_certificate { "yes" } else { "no" };
            lines.push(format!("tls-port {}", place.tls_port));
            lines.push(format!("tls-cert-file \"{}\"", tls.server_certificate().display()));
            lines.push(format!("tls-key-file \"{}\"", tls.server_key().display()));
            lines.push(format!("tls-ca-cert-file \"{}\"", tls.ca().display()));
            lines.push(format!("tls-auth-clients {client}"));
        }
        let extra = self.extra.iter().map(|(directive, value)| match value.as_str() {
            "" => format!("{directive} \"\""),
            value => format!("{directive} {value}"),
        });
        lines.extend(extra);
        lines
    }
}

// === impl Mode ===

impl Mode {
    /// The whole file, in redis.conf's own words.
    pub(crate) fn file(&self, place: &Place<'_>) -> String {
        let mut lines = vec![
            format!("port {}", place.port),
            format!("bind {}", Ipv4Addr::LOCALHOST),
            format!("dir \"{}\"", place.directory.display()),
            "logfile redis.log".to_owned(),
        ];
        match self {
            Self::Server(options) => lines.extend(options.lines(place)),
            Self::Cluster(options) => {
                lines.push("cluster-enabled yes".to_owned());
                // The usual one is 10,000 higher, where systems draw ports for others.
                lines.push(format!("cluster-port {}", place.bus_port));
                lines.extend(options.lines(place));
            }
            Self::Sentinel(directives) => lines.extend(directives.iter().cloned()),
        }
        lines.join("\n") + "\n"
    }

    /// The options of what is no sentinel.
    pub(crate) fn options(&self) -> Option<&RedisOptions> {
        match self {
            Self::Server(options) | Self::Cluster(options) => Some(options),
            Self::Sentinel(_) => None,
        }
    }
}
