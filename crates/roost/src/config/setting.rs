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
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

/// A Redis URL, which may hold a password: never shown whole.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(pub String);

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
    fn read(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("redis://");
        match rest {
            Some(rest) if !rest.is_empty() => Ok(Self(text.to_owned())),
            _ => Err("expected a URL such as redis://127.0.0.1:6379".to_owned()),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.redacted()))
    }
}

impl Setting for Duration {
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
    fn read(text: &str) -> Result<Self, String> {
        let expected = "expected an IP address and a port, such as 127.0.0.1:7080 or [::]:7080";
        text.parse().map_err(|_| expected.to_owned())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Setting for PathBuf {
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
