//! The one place where a "no" becomes a gRPC status, with `ErrorInfo`, `RetryInfo` and `BadRequest`.
//! Which code means what is in `roost-types`.

use std::collections::HashMap;
use std::time::Duration;

use roost_auth::AuthError;
use roost_cluster::StoreError;
use roost_proto::control::v1;
use roost_proto::convert::{Violation, Violations};
use roost_types::{ErrorCode, HubError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "roost.dev";

/// A "no" on its way to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    message: String,
    /// Paths in the request, with what was wrong and what would be right.
    fields: Vec<(String, String)>,
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Vec::new() }
    }

    /// The same about one field of the request.
    pub(crate) fn at(mut self, field: &str) -> Self {
        self.fields = vec![(field.to_owned(), self.message.clone())];
        self.message = format!("{field}: {}", self.message);
        self
    }

    fn of_fields<'a>(code: ErrorCode, violations: impl Iterator<Item = &'a Violation>) -> Self {
        let fields: Vec<_> = violations
            .map(|violation| (violation.field.clone(), violation.description.clone()))
            .collect();
        let texts: Vec<_> = fields.iter().map(|(field, what)| format!("{field}: {what}")).collect();
        Self { code, message: texts.join("; "), fields }
    }

    /// A store that could not be read. Nothing was to be stored, so the difference between "not
    /// sent" and "not answered" means nothing to the caller.
    pub(crate) fn of_read(error: &StoreError) -> Self {
        let code = match error {
            StoreError::NotSent(_) | StoreError::Indeterminate(_) | StoreError::Stale => {
                ErrorCode::Unavailable
            }
            other => other.code(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<HubError> for Refusal {
    fn from(error: HubError) -> Self {
        let refusal = Self::new(error.code, error.message);
        match error.field {
            Some(field) => refusal.at(&field),
            None => refusal,
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        HubError::from(error).into()
    }
}

impl From<StoreError> for Refusal {
    /// A change that the store did not make, or may have made.
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Violations::from(violation).into()
    }
}

impl From<Violations> for Refusal {
    fn from(violations: Violations) -> Self {
        Self::of_fields(violations.code(), violations.iter())
    }
}

impl From<Refusal> for v1::BatchSendError {
    fn from(refusal: Refusal) -> Self {
        let code = refusal.code;
        Self {
            code: code.grpc_code(),
            reason: code.as_str().to_owned(),
            message: refusal.message,
            retryable: code.retryable(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = Code::from_i32(refusal.code.grpc_code());
        let mut details =
            ErrorDetails::with_error_info(refusal.code.as_str(), DOMAIN, HashMap::new());
        if refusal.code.retryable() {
            details.set_retry_info(Some(retry_after(refusal.code)));
        }
        if code == Code::InvalidArgument && !refusal.fields.is_empty() {
            let violations = refusal.fields.into_iter();
            let violations = violations.map(|(field, what)| FieldViolation::new(field, what));
            details.set_bad_request(violations.collect::<Vec<_>>());
        }
        Self::with_error_details(code, refusal.message, details)
    }
}

/// Three checked fields, or all that is wrong with them.
pub(crate) fn all_of<A, B, C>(
    (a, b, c): (Result<A, Violation>, Result<B, Violation>, Result<C, Violation>),
) -> Result<(A, B, C), Refusal> {
    match (a, b, c) {
        (Ok(a), Ok(b), Ok(c)) => Ok((a, b, c)),
        (a, b, c) => {
            let wrong: Vec<_> = [a.err(), b.err(), c.err()].into_iter().flatten().collect();
            let code = wrong.first().map_or(ErrorCode::Internal, |first| first.code);
            Err(Refusal::of_fields(code, wrong.iter()))
        }
    }
}

/// When the same request has a chance again.
fn retry_after(code: ErrorCode) -> Duration {
    match code {
        // Another node takes the call at once.
        ErrorCode::Draining => Duration::from_millis(100),
        // The store is sought with back-off; within seconds it is back or will be away for longer.
        ErrorCode::NotEnqueued | ErrorCode::Indeterminate | ErrorCode::Unavailable => {
            Duration::from_millis(500)
        }
        // Room comes with the devices' answers, or with expiries.
        _ => Duration::from_secs(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status_reason_and_retry_delay() {
        for &code in ErrorCode::ALL {
            let status = Status::from(Refusal::new(code, "what was wrong"));
            assert_eq!(status.code() as i32, code.grpc_code(), "{code}");
            assert_eq!(status.message(), "what was wrong");
            let info = status.get_details_error_info().unwrap();
            assert_eq!((&*info.reason, &*info.domain), (code.as_str(), "roost.dev"));
            let retry = status.get_details_retry_info();
            assert_eq!(retry.is_some(), code.retryable(), "{code}");
            assert!(status.get_details_bad_request().is_none(), "{code}");
        }
    }

    #[test]
    fn fields_are_listed_where_the_argument_is_wrong() {
        let status =
            Status::from(Refusal::new(ErrorCode::CursorInvalid, "not ours").at("page_token"));
        let request = status.get_details_bad_request().unwrap();
        assert_eq!(request.field_violations[0].field, "page_token");
        assert_eq!(request.field_violations[0].description, "not ours");
        assert_eq!(status.message(), "page_token: not ours");
    }

    #[test]
    fn a_read_is_never_indeterminate() {
        let refusal = Refusal::of_read(&StoreError::Indeterminate("x".into()));
        assert_eq!(refusal.code, ErrorCode::Unavailable);
        let refusal = Refusal::from(StoreError::Indeterminate("x".into()));
        assert_eq!(refusal.code, ErrorCode::Indeterminate);
    }
}
