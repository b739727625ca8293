//! `Debug` for generated messages that hold what must not reach a log: content and credentials.
//! Everything else has the derived one.

use std::fmt;

/// Gives the payload of a package a `Debug` that tells its kind and size, and nothing of what is in it.
macro_rules! redact_payload {
    ($module:path) => {
        const _: () = {
            use $module as v1;

            impl fmt::Debug for v1::Payload {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    match &self.body {
                        Some(body) => write!(f, "Payload({body:?})"),
                        None => f.write_str("Payload(none)"),
                    }
                }
            }

            impl fmt::Debug for v1::payload::Body {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    match self {
                        Self::Json(json) => write!(f, "Json, {} B", json.len()),
                        Self::Text(text) => write!(f, "Text, {} B", text.len()),
                        Self::Binary(data) => write!(f, "Binary, {} B", data.len()),
                    }
                }
            }
        };
    };
}

redact_payload!(crate::control::v1);
redact_payload!(crate::device::v1);

impl fmt::Debug for crate::device::v1::Hello {
    /// Everything but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("keepalive_ms", &self.keepalive_ms)
            .field("subscriptions", &self.subscriptions)
            .field("has_token", &!self.token.is_empty())
            .field("features", &self.features)
            .finish()
    }
}
