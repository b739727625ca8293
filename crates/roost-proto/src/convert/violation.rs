//! What is wrong with a request, field by field. How it becomes a gRPC status is in `roost-control`.

use std::fmt;

use roost_types::{ErrorCode, HubError};

/// One field that cannot be accepted as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule it broke, for machines.
    pub code: ErrorCode,
    /// Its path in the request: `payload.json`, `subscriptions[2].topic_filter`.
    pub field: String,
    /// What was wrong and what would be right, for people.
    pub description: String,
}

/// Everything that is wrong with a request: at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations {
    first: Violation,
    rest: Vec<Violation>,
}

/// Gathers what is wrong while a request is read.
#[derive(Debug, Default)]
pub(super) struct Checks(Vec<Violation>);

// === impl Violation ===

impl Violation {
    /// A violation of any rule.
    pub fn new(code: ErrorCode, field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { code, field: field.into(), description: description.into() }
    }

    /// A field that is needed is absent.
    pub(super) fn missing(field: &str, wanted: &str) -> Self {
        let description = format!("is required: {wanted}");
        Self::new(ErrorCode::FieldMissing, field, description)
    }

    /// A field has a value that it cannot have.
    pub(super) fn invalid(field: &str, description: impl Into<String>) -> Self {
        Self::new(ErrorCode::FieldInvalid, field, description)
    }

    /// The same where the message that has the field is itself a field of the request.
    fn within(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

impl From<Violation> for HubError {
    fn from(violation: Violation) -> Self {
        HubError::new(violation.code, violation.to_string()).at(violation.field)
    }
}

// === impl Violations ===

impl Violations {
    /// All of them, in the order of the request's fields.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The code that speaks for all: that of the first.
    pub fn code(&self) -> ErrorCode {
        self.first.code
    }
}

impl From<Violation> for Violations {
    fn from(first: Violation) -> Self {
        Self { first, rest: Vec::new() }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{violation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

impl From<Violations> for HubError {
    /// The first field's code and path, with a message that names all fields.
    fn from(violations: Violations) -> Self {
        let message = violations.to_string();
        HubError::new(violations.first.code, message).at(violations.first.field)
    }
}

// === impl Checks ===

impl Checks {
    /// The value, or a note of what is wrong with it.
    pub(super) fn take<T>(&mut self, checked: Result<T, Violation>) -> Option<T> {
        checked.map_err(|violation| self.0.push(violation)).ok()
    }

    /// Notes what is wrong with a field that stands for itself.
    pub(super) fn note(&mut self, violation: Violation) {
        self.0.push(violation);
    }

    /// What was noted about a message that is itself the field `parent` of the request.
    pub(super) fn note_within(&mut self, parent: &str, inner: Self) {
        self.0.extend(inner.0.into_iter().map(|violation| violation.within(parent)));
    }

    /// The whole if every part is there and nothing was noted, else what was noted.
    ///
    /// `whole` is `None` only if something was noted: `take` gives `None` for no other reason.
    pub(super) fn finish<T>(self, whole: Option<T>) -> Result<T, Violations> {
        let mut notes = self.0.into_iter();
        match (notes.next(), whole) {
            (Some(first), _) => Err(Violations { first, rest: notes.collect() }),
            (None, Some(whole)) => Ok(whole),
            (None, None) => Err(Violation::new(
                ErrorCode::Internal,
                "",
                "a part of the request was refused without a reason",
            )
            .into()),
        }
    }
}
