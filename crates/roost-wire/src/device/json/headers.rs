//! The headers of a message: an object of strings in JSON. Payloads are in `payload.rs`.

use std::fmt;
use std::sync::Arc;

use roost_types::{ErrorCode, Headers, HubError};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Field, Fields};
use super::value::{invalid, shown, string};
use super::{MAX_HEADER_NAME_BYTES, MAX_HEADER_VALUE_BYTES, MAX_HEADERS};

/// `headers`: an object of strings, in the order given.
pub(super) fn read(fields: &Fields<'_>) -> Result<Headers, HubError> {
    let Some(raw) = fields.raw(Field::Headers) else {
        return Ok(Headers::new());
    };
    let entries =
        entries(raw).ok_or_else(|| invalid(Field::Headers, shown(raw), "an object of strings"))?;
    if entries.len() > MAX_HEADERS {
        let is = format_args!("more than {MAX_HEADERS} headers");
        return Err(invalid(Field::Headers, is, format_args!("at most {MAX_HEADERS}")));
    }
    let mut headers = Headers::with_capacity(entries.len());
    for (name, raw) in entries {
        let value = header(&name, raw)?;
        if headers.iter().any(|(known, _)| **known == *name) {
            return Err(bad_header(&name, "given twice", "given once"));
        }
        headers.push((name.into(), value));
    }
    Ok(headers)
}

fn header(name: &str, raw: &str) -> Result<Arc<str>, HubError> {
    if name.is_empty() || name.len() > MAX_HEADER_NAME_BYTES {
        let is = format!("named in {} bytes", name.len());
        let want = format!("named in 1 to {MAX_HEADER_NAME_BYTES} bytes");
        return Err(bad_header(name, &is, &want));
    }
    let value = string(Field::Headers, raw)
        .map_err(|_| bad_header(name, &shown(raw), "a string of whole characters"))?;
    if value.len() > MAX_HEADER_VALUE_BYTES {
        let is = format!("{} bytes long", value.len());
        let want = format!("at most {MAX_HEADER_VALUE_BYTES}");
        return Err(bad_header(name, &is, &want));
    }
    Ok(value.into())
}

fn bad_header(name: &str, is: &str, want: &str) -> HubError {
    let name: String = name.chars().take(32).collect();
    let message = format!("the header {name:?} is {is}; it must be {want}");
    HubError::new(ErrorCode::FieldInvalid, message).at("headers")
}

/// The names and JSON values of an object, at most one more than [`MAX_HEADERS`]; `None` where
/// it is no object.
fn entries(raw: &str) -> Option<Vec<(String, &str)>> {
    let mut json = serde_json::Deserializer::from_str(raw);
    json.deserialize_map(Entries).ok()
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while entries.len() <= MAX_HEADERS {
            match map.next_entry::<String, &RawValue>()? {
                Some((name, value)) => entries.push((name, value.get())),
                None => return Ok(entries),
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(entries)
    }
}
