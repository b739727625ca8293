//! One JSON value as what it must be, and the words for one that is something else.
//!
//! Every error names the field, what it is, and what would be right. Whole objects are in
//! `fields.rs`.

use std::borrow::Cow;
use std::fmt;

use roost_types::{ErrorCode, HubError};

use super::fields::Field;

/// The value of a string field. `raw` is valid JSON, so a string without escapes is its own value.
pub(super) fn string(field: Field, raw: &str) -> Result<Cow<'_, str>, HubError> {
    let Some(inner) = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')) else {
        return Err(invalid(field, shown(raw), "a string"));
    };
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).map(Cow::Owned).map_err(|_| {
        let is = "a string with an escape that is half a character";
        invalid(field, is, "a string of whole Unicode characters")
    })
}

/// The value, or the error that the field is missing.
pub(super) fn required<T>(field: Field, value: Option<T>) -> Result<T, HubError> {
    value.ok_or_else(|| {
        let message = format!("{} is missing; this message needs it", field.name());
        HubError::new(ErrorCode::FieldMissing, message).at(field.name())
    })
}

/// The error for a field that is one thing and must be another.
pub(super) fn invalid(field: Field, is: impl fmt::Display, want: impl fmt::Display) -> HubError {
    let name = field.name();
    let message = format!("{name} is {is}; it must be {want}");
    HubError::new(ErrorCode::FieldInvalid, message).at(name)
}

/// A JSON value in a few words, for an error.
pub(super) fn shown(raw: &str) -> Cow<'_, str> {
    const MOST: usize = 40;
    match raw.as_bytes().first() {
        Some(b'{') => Cow::Borrowed("an object"),
        Some(b'[') => Cow::Borrowed("an array"),
        _ if raw.len() <= MOST => Cow::Borrowed(raw),
        _ => Cow::Owned(format!("{}…", &raw[..raw.floor_char_boundary(MOST)])),
    }
}
