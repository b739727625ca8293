//! Identifiers: what may stand in one, and the newtypes that prove it does. Topics are in `topic.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most bytes an id may have.
const MAX_ID_BYTES: usize = 128;

/// Which rule an id broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The id is the empty string.
    #[error("{kind} is empty; it needs 1 to 128 characters of A-Z a-z 0-9 . _ : ~ -")]
    Empty {
        /// What kind of id this was to be, `device id` say.
        kind: &'static str,
    },
    /// The id has more than 128 bytes.
    #[error("{kind} has {bytes} bytes; at most 128 are allowed")]
    TooLong {
        /// What kind of id this was to be.
        kind: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// The id has a character outside the allowed set.
    #[error("{kind} has the character {found:?} at byte {at}; allowed are A-Z a-z 0-9 . _ : ~ -")]
    Character {
        /// What kind of id this was to be.
        kind: &'static str,
        /// The first character that is not allowed.
        found: char,
        /// Its byte offset.
        at: usize,
    },
    /// A session id is not 32 lower-case hexadecimal digits.
    #[error("a session id is 32 lower-case hexadecimal digits")]
    SessionId,
}

fn check(kind: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { kind });
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong { kind, bytes: text.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '~' | '-');
    match text.char_indices().find(|&(_, c)| !allowed(c)) {
        Some((at, found)) => Err(IdError::Character { kind, found, at }),
        None => Ok(()),
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 128 characters of `[A-Za-z0-9._:~-]`; cheap to clone.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the rule and takes the text over.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                check($kind, text)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

id_type!(
    /// A customer of the hub; nothing crosses from one tenant to another.
    TenantId, "tenant id"
);
id_type!(
    /// A device's name, unique within its tenant.
    DeviceId, "device id"
);
id_type!(
    /// A command's name, unique within its device: the idempotency key.
    CommandId, "command id"
);
id_type!(
    /// A hub node's name, unique among the nodes that share a store.
    NodeId, "node id"
);

impl Default for TenantId {
    /// The tenant of a hub where none is configured: `default`.
    fn default() -> Self {
        Self("default".into())
    }
}

impl CommandId {
    /// A new id that sorts by creation time (a ULID).
    pub fn generate() -> Self {
        Self(ulid::Ulid::new().to_string().into())
    }
}

impl NodeId {
    /// A new random id with a readable prefix, `edge-01k…` say.
    ///
    /// The prefix must itself satisfy the id rule and be short.
    pub fn generate(prefix: &str) -> Self {
        let tail = ulid::Ulid::new().to_string().to_ascii_lowercase();
        Self(format!("{prefix}-{tail}").into())
    }
}

/// A device on the hub: tenant and device id together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey {
    /// The tenant that the device belongs to.
    pub tenant: TenantId,
    /// The device's id within the tenant.
    pub device: DeviceId,
}

impl DeviceKey {
    /// Puts the two together.
    pub fn new(tenant: TenantId, device: DeviceId) -> Self {
        Self { tenant, device }
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.device)
    }
}

/// One connection's ownership of a device: 128 random bits that serve as the fencing token.
///
/// Compared for equality only. A counter would be no token: after a store failover the same number
/// can be handed out twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// A new random session id.
    ///
    /// # Panics
    /// If the operating system has no randomness to give, as nothing safe could follow.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system provides randomness");
        Self(bytes)
    }

    /// From its 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        if text.len() != 32 || !text.chars().all(hex) {
            return Err(IdError::SessionId);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| IdError::SessionId)?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_the_rule_it_broke() {
        assert_eq!(DeviceId::new("").unwrap_err(), IdError::Empty { kind: "device id" });
        assert_eq!(
            DeviceId::new("a/b").unwrap_err().to_string(),
            "device id has the character '/' at byte 1; allowed are A-Z a-z 0-9 . _ : ~ -"
        );
        assert!(matches!(TenantId::new("x".repeat(129)), Err(IdError::TooLong { bytes: 129, .. })));
        assert!(CommandId::new("x".repeat(128)).is_ok());
        assert!(NodeId::new("a.b_c:d~e-9").is_ok());
        assert!(NodeId::new("{p1}").is_err());
    }

    #[test]
    fn a_session_id_round_trips_and_refuses_other_spellings() {
        let id = SessionId::random();
        assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
        assert_ne!(id, SessionId::random());
        for bad in ["", "0", "ABCDEF00000000000000000000000000", "+1234567890123456789012345678901"]
        {
            assert_eq!(bad.parse::<SessionId>(), Err(IdError::SessionId), "{bad}");
        }
    }

    #[test]
    fn generated_ids_satisfy_their_own_rule() {
        assert!(CommandId::new(CommandId::generate()).is_ok());
        assert!(NodeId::new(NodeId::generate("edge")).is_ok());
    }
}
