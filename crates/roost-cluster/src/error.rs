//! What can go wrong between a node and its store. The one question that every caller has, whether
//! a retry is safe, is answered by the variant.

use roost_types::{ErrorCode, HubError};

/// Why a store operation did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was sent: the store is known to be out of reach. Retrying is safe.
    #[error("the store is out of reach and nothing was sent to it: {0}")]
    NotSent(String),
    /// The store was asked and did not answer in time: it may have been done. Retry with the same id.
    #[error("the store was asked and did not answer: {0}")]
    Indeterminate(String),
    /// The store has no memory left for what is new. Nothing was changed.
    #[error("the store is full: {0}")]
    Full(String),
    /// The request reached the store after its time and was refused there. Nothing was changed.
    #[error("the request reached the store too late and was refused")]
    Stale,
    /// The session, or the node's incarnation, that asked is no longer the owner. Nothing was changed.
    #[error("the session that asks is no longer the owner")]
    Fenced,
    /// The caller's page token, cursor or filter is not one that this store gave.
    #[error("{0}")]
    Invalid(String),
    /// What the store holds or said makes no sense; a mistake of the hub's own or foreign writes.
    #[error("unexpected data in the store: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// What a caller outside is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotSent(_) | Self::Stale => ErrorCode::NotEnqueued,
            Self::Indeterminate(_) => ErrorCode::Indeterminate,
            Self::Full(_) => ErrorCode::StoreFull,
            Self::Fenced => ErrorCode::Fenced,
            Self::Invalid(_) => ErrorCode::CursorInvalid,
            Self::Corrupt(_) => ErrorCode::Internal,
        }
    }
}

impl From<StoreError> for HubError {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
