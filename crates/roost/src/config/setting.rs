//! The types of values: how each is read from text, and how it is shown. Every value is read from
//! text, since the environment and flags have nothing else, and the file's scalars are as good.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use roost_types::NodeId;

/// A type of value.
pub(super) trait Setting: Sized {
    /// Reads it; the error says what would be right.
    fn read(text: &str) -> Result<Self, String>;
    /// As TOML; `None` where it is not set.
    fn to_toml(&self) -> Option<String>;
    /// What it is, for people.
    fn kind() -> String {
        "text".to_owned()
    }
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

/// A Redis URL, which may hold a password: never shown whole.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(pub String);

/// `http://HOST:PORT` of a collector of spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorUrl(pub String);

/// A share of a whole, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

/// What browsers may send as `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(pub Vec<String>);

macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl Setting for $name {
            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(format!("expected one of {}", [$($text),*].join(", "))),
                }
            }

            fn to_toml(&self) -> Option<String> {
                match self { $(Self::$variant => Some(quoted($text)),)* }
            }

            fn kind() -> String {
                [$(concat!("`", $text, "`")),*].join(", ")
            }
        }
    };
}

choices! {
    /// What a node does.
    RoleChoice {
        /// Both.
        All = "all",
        /// Devices connect to it.
        Edge = "edge",
        /// Back ends call it.
        Control = "control",
    }
}
choices! {
    /// What an accepted command is to be worth.
    Tier {
        /// In the memory of one Redis.
        Memory = "memory",
        /// Confirmed by replicas.
        Replicated = "replicated",
        /// Flushed to disk, by replicas too.
        Fsync = "fsync",
    }
}
choices! {
    /// Who is believed.
    AuthMode {
        /// Who proves it by token or key.
        Token = "token",
        /// Everybody.
        Insecure = "insecure",
    }
}
choices! {
    /// What log lines look like.
    LogStyle {
        /// For people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

// === impl RoleChoice ===

impl RoleChoice {
    /// Whether devices connect to it.
    pub fn has_edge(self) -> bool {
        self != Self::Control
    }

    /// Whether back ends call it.
    pub fn has_control(self) -> bool {
        self != Self::Edge
    }
}

// === impl RedisUrl ===

impl RedisUrl {
    /// The URL with a password, if there is one, hidden.
    pub fn redacted(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("redis", &self.0));
        match rest.rsplit_once('@') {
            None => self.0.clone(),
            Some((credential, host)) => {
                let user = credential.split(':').next().unwrap_or_default();
                format!("{scheme}://{user}:***@{host}")
            }
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

// === impl Setting for … ===

impl Setting for Flag {
    fn kind() -> String {
        "`true`, `false`".to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            _ => Err("expected true or false".to_owned()),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

impl Setting for RedisUrl {
    fn kind() -> String {
        "URL".to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        match roost_redis::RedisConfig::check_url(text) {
            Ok(()) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("expected a URL such as redis://127.0.0.1:6379: {error}")),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.redacted()))
    }
}

impl Setting for CollectorUrl {
    fn read(text: &str) -> Result<Self, String> {
        let at = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match at.and_then(|at| at.rsplit_once(':')) {
            Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => {
                Ok(Self(text.trim_end_matches('/').to_owned()))
            }
            _ => Err("expected http://HOST:PORT, such as http://otel-collector:4317; a collector \
                      that asks for TLS is reached through one that does not, beside the node"
                .to_owned()),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }

    fn kind() -> String {
        "URL".to_owned()
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '?'))
}

impl Setting for Share {
    fn read(text: &str) -> Result<Self, String> {
        let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(Self).ok_or_else(|| "expected a number from 0 to 1, such as 0.01".to_owned())
    }

    fn to_toml(&self) -> Option<String> {
        // With a point, or it would be an integer.
        Some(format!("{:?}", self.0))
    }

    fn kind() -> String {
        "number from 0 to 1".to_owned()
    }
}

impl Setting for Origins {
    fn read(text: &str) -> Result<Self, String> {
        let origins: Vec<_> = text.split(',').map(|one| one.trim().to_owned()).collect();
        match origins.iter().find(|one| !is_origin(one)) {
            None => Ok(Self(origins)),
            Some(wrong) => Err(format!(
                "{wrong:?} is no Origin as browsers send it; expected a list such as \
                 \"https://app.example.com, http://localhost:8080\", without paths"
            )),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.0.join(", ")))
    }
}

/// `scheme://host[:port]`, as RFC 6454 §6.2 has it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    plain(scheme) && plain(rest) && !rest.contains(['/', '?', '#', '@', '*'])
}

impl Setting for Duration {
    fn kind() -> String {
        "duration".to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        duration(text).ok_or_else(|| {
            "expected a duration such as \"500ms\", \"10s\", \"5m\", \"24h\" or \"7d\"".to_owned()
        })
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&show_duration(*self)))
    }
}

impl Setting for SocketAddr {
    fn kind() -> String {
        "address and port".to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        let expected = "expected an IP address and a port, such as 127.0.0.1:7080 or [::]:7080";
        text.parse().map_err(|_| expected.to_owned())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Setting for PathBuf {
    fn kind() -> String {
        "path".to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected the path of a file".to_owned());
        }
        Ok(text.into())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.display().to_string()))
    }
}

impl Setting for NodeId {
    fn kind() -> String {
        "id".to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|error| error.to_string())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(self.as_str()))
    }
}

impl Setting for String {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected some text".to_owned());
        }
        Ok(text.to_owned())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl<T: Setting> Setting for Option<T> {
    fn kind() -> String {
        T::kind()
    }

    fn read(text: &str) -> Result<Self, String> {
        T::read(text).map(Some)
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(Setting::to_toml)
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn kind() -> String {
                "whole number".to_owned()
            }

            fn read(text: &str) -> Result<Self, String> {
                let plain = text.replace('_', "");
                plain.parse().map_err(|_| format!("expected a whole number from 0 to {}", <$type>::MAX))
            }

            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}
integers!(u32, u64, usize);

/// Reads `10s`, `500ms`, `5m`, `24h` or `7d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// The shortest form that [`duration`] reads as the same.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() != 0 {
        return format!("{}ms", duration.as_millis());
    }
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let whole = |(size, _): &&(u64, &str)| seconds != 0 && seconds.is_multiple_of(*size);
    match units.iter().find(whole) {
        Some((size, unit)) => format!("{}{unit}", seconds / size),
        None => format!("{seconds}s"),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
