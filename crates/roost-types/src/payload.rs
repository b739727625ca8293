//! What a message, a command or a result carries. How it is written in JSON is in `roost-wire`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

/// UTF-8 text in shared bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Bytes);

impl Text {
    /// Takes bytes over if they are UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes of the text, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made")
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Which of the three ways a payload travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadKind {
    /// A JSON value, passed on byte for byte.
    Json,
    /// Text of any kind, XML say.
    Text,
    /// Bytes.
    Binary,
}

impl PayloadKind {
    /// The content type of a payload that names none.
    pub fn default_content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Binary => "application/octet-stream",
        }
    }
}

/// What is carried, with its kind and content type. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    kind: PayloadKind,
    data: Bytes,
    content_type: Option<Arc<str>>,
}

impl Payload {
    /// A JSON value. The caller has checked that it is one; it is passed on byte for byte.
    pub fn json(value: Text) -> Self {
        Self::of(PayloadKind::Json, value.0)
    }

    /// Text of any kind.
    pub fn text(text: Text) -> Self {
        Self::of(PayloadKind::Text, text.0)
    }

    /// Bytes.
    pub fn binary(data: Bytes) -> Self {
        Self::of(PayloadKind::Binary, data)
    }

    fn of(kind: PayloadKind, data: Bytes) -> Self {
        Self { kind, data, content_type: None }
    }

    /// The same with a content type of its own; `None` or the kind's default leave it unsaid.
    #[must_use]
    pub fn with_content_type(mut self, content_type: Option<&str>) -> Self {
        self.content_type = content_type
            .filter(|given| !given.is_empty() && *given != self.kind.default_content_type())
            .map(Into::into);
        self
    }

    /// Rebuilds a payload from its stored parts; `None` where text is not UTF-8.
    pub fn from_parts(kind: PayloadKind, data: Bytes, content_type: Option<&str>) -> Option<Self> {
        let is_text = kind != PayloadKind::Binary;
        if is_text && std::str::from_utf8(&data).is_err() {
            return None;
        }
        Some(Self::of(kind, data).with_content_type(content_type))
    }

    /// The way it travels.
    pub fn kind(&self) -> PayloadKind {
        self.kind
    }

    /// The decoded bytes: of the JSON text, the text, or the binary data.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The text, where it is JSON or text.
    pub fn as_str(&self) -> Option<&str> {
        match self.kind {
            PayloadKind::Binary => None,
            _ => Some(std::str::from_utf8(&self.data).expect("checked when it was made")),
        }
    }

    /// The content type, the kind's default where none was given.
    pub fn content_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or(self.kind.default_content_type())
    }

    /// The content type only where it is not the kind's default.
    pub fn own_content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// How many decoded bytes it has: what limits count.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

impl fmt::Debug for Payload {
    /// Kind and size only: payloads never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({:?}, {} B)", self.kind, self.data.len())
    }
}
