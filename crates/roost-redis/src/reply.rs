//! Reading what scripts and commands answer. Whatever does not fit is `Corrupt`, never a panic.

use std::str::FromStr;

use redis::Value;
use roost_cluster::StoreError;

use crate::error::corrupt;

/// A list in an answer, read from its front.
#[derive(Debug)]
pub(crate) struct Reply(std::vec::IntoIter<Value>);

/// The fields of a hash.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(Vec<u8>, Vec<u8>)>);

// === impl Reply ===

impl Reply {
    pub(crate) fn new(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(items) | Value::Set(items) => Ok(Self(items.into_iter())),
            Value::Nil => Ok(Self(Vec::new().into_iter())),
            other => Err(corrupt(format!("Redis answered {} where a list belongs", kind(&other)))),
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn value(&mut self) -> Result<Value, StoreError> {
        self.0.next().ok_or_else(|| corrupt("an answer of Redis is too short"))
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        bytes(self.value()?)
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        text(self.bytes()?)
    }

    /// `None` for nil and at the end.
    pub(crate) fn optional_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.0.next() {
            None | Some(Value::Nil) => Ok(None),
            Some(value) => bytes(value).and_then(text).map(Some),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, StoreError> {
        match self.value()? {
            Value::Int(number) => {
                u64::try_from(number).map_err(|_| corrupt(format!("{number} is negative")))
            }
            other => parse(&text(bytes(other)?)?),
        }
    }

    /// Passes one item over.
    pub(crate) fn skip(&mut self) {
        self.0.next();
    }

    pub(crate) fn list(&mut self) -> Result<Self, StoreError> {
        Self::new(self.value()?)
    }

    pub(crate) fn fields(&mut self) -> Result<Fields, StoreError> {
        Fields::new(self.value()?)
    }
}

// === impl Fields ===

impl Fields {
    /// From the answer to HGETALL, or the same as a flat list.
    pub(crate) fn new(value: Value) -> Result<Self, StoreError> {
        if let Value::Map(pairs) = value {
            let pair = |(name, value)| Ok((bytes(name)?, bytes(value)?));
            return pairs.into_iter().map(pair).collect::<Result<_, _>>().map(Self);
        }
        let mut flat = Reply::new(value)?;
        let mut fields = Vec::new();
        while !flat.is_done() {
            fields.push((flat.bytes()?, flat.bytes()?));
        }
        Ok(Self(fields))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a field out.
    pub(crate) fn bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|(n, _)| n == name.as_bytes())?;
        Some(self.0.swap_remove(at).1)
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, StoreError> {
        self.bytes(name).map(text).transpose()
    }

    pub(crate) fn needed_text(&mut self, name: &str) -> Result<String, StoreError> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    pub(crate) fn parse<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, StoreError> {
        self.text(name)?.map(|found| parse(&found)).transpose()
    }

    pub(crate) fn needed<T: FromStr>(&mut self, name: &str) -> Result<T, StoreError> {
        self.parse(name)?.ok_or_else(|| missing(name))
    }
}

fn missing(name: &str) -> StoreError {
    corrupt(format!("a record has no field {name:?}"))
}

/// Reads something from its text.
pub(crate) fn parse<T: FromStr>(found: &str) -> Result<T, StoreError> {
    let what = std::any::type_name::<T>();
    found.parse().map_err(|_| corrupt(format!("{found:?} is not a {what}")))
}

fn bytes(value: Value) -> Result<Vec<u8>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Okay => Ok(b"OK".to_vec()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        other => Err(corrupt(format!("Redis answered {} where text belongs", kind(&other)))),
    }
}

fn text(bytes: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(bytes).map_err(|_| corrupt("a text in Redis is not UTF-8"))
}

/// The kind of a value, for errors: never its content.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "text",
        Value::Array(_) | Value::Set(_) => "a list",
        Value::Map(_) => "a map",
        Value::ServerError(_) => "an error",
        _ => "something else",
    }
}
