//! Why a caller is not believed. Messages say what would be right and never repeat a token or key.
//! Faults of key *files* are in `key_file.rs`.

use roost_types::{ErrorCode, HubError, IdError, UnixMillis};

/// Why a credential was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// None came, or only one of a kind that this authenticator does not take.
    #[error("no credential: {expected}")]
    Missing {
        /// What should have come, and where.
        expected: &'static str,
    },
    /// It cannot be read.
    #[error("the credential is malformed: {problem}")]
    Malformed {
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// It is longer than anything that is read.
    #[error("the credential has {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// The token is signed in a way that is not accepted, or not at all.
    #[error("the token's `alg` is not accepted: sign it with HS256")]
    UnsupportedAlgorithm,
    /// The signature is not by this hub's key, or the token was changed.
    #[error("the token's signature is wrong: it was signed with another key, or changed since")]
    BadSignature,
    /// A claim that is needed is absent.
    #[error("the token lacks the claim `{claim}`: {expected}")]
    MissingClaim {
        /// The claim's name.
        claim: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A claim has the wrong type.
    #[error("the token's claim `{claim}` is not right: {expected}")]
    BadClaim {
        /// The claim's name.
        claim: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// The token was good once.
    #[error(
        "the token expired at {expired_at} (Unix time), {ago_seconds} s ago: present a new one"
    )]
    Expired {
        /// Its `exp`.
        expired_at: UnixMillis,
        /// How long ago that was.
        ago_seconds: u64,
    },
    /// The token will be good later, or the clock of who signed it is ahead.
    #[error("the token is not valid before {not_before} (Unix time), in {in_seconds} s")]
    NotYetValid {
        /// Its `nbf`.
        not_before: UnixMillis,
        /// How far off that is.
        in_seconds: u64,
    },
    /// The token is for somebody else.
    #[error("the token's audience is not this hub's: `aud` must be or contain {expected:?}")]
    WrongAudience {
        /// The hub's audience.
        expected: String,
    },
    /// The device id breaks the id rule.
    #[error("the credential's device id is not right: {0}")]
    BadDeviceId(#[source] IdError),
    /// The tenant breaks the id rule.
    #[error("the credential's tenant is not right: {0}")]
    BadTenant(#[source] IdError),
    /// No such API key.
    #[error(
        "the API key is not one of this hub's: send `authorization: Bearer <key>` with a key from its --api-key-file"
    )]
    UnknownApiKey,
}

// === impl AuthError ===

impl AuthError {
    /// The hub-wide code, which maps to close code, gRPC status and metric label.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing { .. } => ErrorCode::CredentialMissing,
            Self::Expired { .. } => ErrorCode::CredentialExpired,
            Self::Malformed { .. }
            | Self::TooLong { .. }
            | Self::UnsupportedAlgorithm
            | Self::BadSignature
            | Self::MissingClaim { .. }
            | Self::BadClaim { .. }
            | Self::NotYetValid { .. }
            | Self::WrongAudience { .. }
            | Self::BadDeviceId(_)
            | Self::BadTenant(_)
            | Self::UnknownApiKey => ErrorCode::CredentialInvalid,
        }
    }
}

impl From<AuthError> for HubError {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
