//! Payloads. What goes in comes out byte for byte.

use roost_types::{ErrorCode, Payload, PayloadKind, Text};
use serde_json::value::RawValue;

use super::Violation;
use crate::control::v1::{self, payload::Body};

/// The most bytes that a content type may have.
pub const MAX_CONTENT_TYPE_BYTES: usize = 255;
/// The most levels of arrays and objects in JSON: what a device may send back.
pub const MAX_JSON_DEPTH: usize = 128;

impl From<&Payload> for v1::Payload {
    /// The content type is left out where it is the kind's default.
    fn from(payload: &Payload) -> Self {
        let body = match (payload.kind(), payload.as_str()) {
            (PayloadKind::Json, Some(json)) => Body::Json(json.to_owned()),
            (PayloadKind::Text, Some(text)) => Body::Text(text.to_owned()),
            _ => Body::Binary(payload.data().clone()),
        };
        Self {
            body: Some(body),
            content_type: payload.own_content_type().unwrap_or_default().to_owned(),
        }
    }
}

/// A payload from outside, where there is one. `max_bytes` bounds the body, decoded; `field` is its
/// path in the request.
///
/// A payload without a body is refused and not taken as none: a newer client may have sent a kind
/// that this hub does not know, and its command must not arrive without its arguments.
pub fn payload(
    payload: Option<v1::Payload>,
    max_bytes: usize,
    field: &str,
) -> Result<Option<Payload>, Violation> {
    let Some(v1::Payload { body, content_type }) = payload else {
        return Ok(None);
    };
    let Some(body) = body else {
        let wanted = "one of json, text, binary; leave the whole payload out if there is none";
        return Err(Violation::missing(&format!("{field}.body"), wanted));
    };
    check_size(&body, max_bytes, field)?;
    check_content_type(&content_type, field)?;
    let payload = match body {
        Body::Json(json) => Payload::json(valid_json(json, field)?),
        Body::Text(text) => Payload::text(text.into()),
        Body::Binary(data) => Payload::binary(data),
    };
    Ok(Some(payload.with_content_type(Some(&content_type))))
}

/// The same where there must be one.
pub fn required_payload(
    given: Option<v1::Payload>,
    max_bytes: usize,
    field: &str,
) -> Result<Payload, Violation> {
    payload(given, max_bytes, field)?.ok_or_else(|| {
        let wanted = "set one of json, text, binary; text and binary may be empty";
        Violation::missing(field, wanted)
    })
}

fn check_size(body: &Body, max_bytes: usize, field: &str) -> Result<(), Violation> {
    let (kind, bytes) = match body {
        Body::Json(json) => ("json", json.len()),
        Body::Text(text) => ("text", text.len()),
        Body::Binary(data) => ("binary", data.len()),
    };
    if bytes <= max_bytes {
        return Ok(());
    }
    Err(Violation::new(
        ErrorCode::PayloadTooLarge,
        format!("{field}.{kind}"),
        format!("has {bytes} bytes; at most {max_bytes} are allowed"),
    ))
}

fn check_content_type(content_type: &str, field: &str) -> Result<(), Violation> {
    let fits = content_type.len() <= MAX_CONTENT_TYPE_BYTES;
    if fits && content_type.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Ok(());
    }
    let what = format!(
        "is no media type; it must be at most {MAX_CONTENT_TYPE_BYTES} visible ASCII characters and spaces, \
         application/xml for instance"
    );
    Err(Violation::invalid(&format!("{field}.content_type"), what))
}

/// The text as it is, if it is one JSON value. No depth overflows the stack: nothing is built.
fn valid_json(json: String, field: &str) -> Result<Text, Violation> {
    let field = format!("{field}.json");
    if let Err(error) = serde_json::from_str::<&RawValue>(&json) {
        let what = format!("is not one JSON value ({error}); send other text as `text`");
        return Err(Violation::invalid(&field, what));
    }
    let depth = json_depth(&json);
    if depth > MAX_JSON_DEPTH {
        let what = format!("is nested {depth} deep; at most {MAX_JSON_DEPTH} levels are allowed");
        return Err(Violation::invalid(&field, what));
    }
    Ok(json.into())
}

/// How many brackets of valid JSON are open at once at the most.
fn json_depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    let mut in_string = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            // What is escaped, a quote say, means nothing here.
            b'\\' if in_string => {
                bytes.next();
            }
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 64;

    fn read(body: Body, content_type: &str) -> Result<Option<Payload>, Violation> {
        let content_type = content_type.to_owned();
        let body = Some(body);
        payload(Some(v1::Payload { body, content_type }), MAX, "payload")
    }

    #[test]
    fn json_is_kept_byte_for_byte_and_must_be_json() {
        let odd = " {\"b\": 1.00e+2,\r\n\t\"a\":\"\\u00e9\", \"a\":2} \n";
        let kept = read(Body::Json(odd.into()), "").unwrap().unwrap();
        assert_eq!(kept.as_str(), Some(odd));
        assert_eq!(v1::Payload::from(&kept).body, Some(Body::Json(odd.into())));
        for bad in ["", " ", "{", "{} {}", "nul", "'a'", "[1,]", "\u{feff}1", "NaN"] {
            let violation = read(Body::Json(bad.into()), "").unwrap_err();
            assert_eq!(violation.field, "payload.json", "{bad:?}");
        }
    }

    #[test]
    fn deep_json_is_refused_and_harms_nobody() {
        let read = |depth: usize, inner: &str| {
            let json = "[".repeat(depth) + inner + &"]".repeat(depth);
            let body = Some(Body::Json(json));
            let content_type = String::new();
            let given = v1::Payload { body, content_type };
            payload(Some(given), usize::MAX, "payload")
        };
        assert!(read(MAX_JSON_DEPTH, r#""[[\"[{\\""#).is_ok());
        for depth in [MAX_JSON_DEPTH + 1, 10_000, 1_000_000] {
            let violation = read(depth, "").unwrap_err();
            assert_eq!(violation.field, "payload.json", "{depth}");
        }
    }

    #[test]
    fn the_bound_counts_bytes_and_is_inclusive() {
        assert!(read(Body::Text("x".repeat(MAX)), "").is_ok());
        for (body, field) in [
            (Body::Text("é".repeat(MAX / 2 + 1)), "payload.text"),
            (Body::Binary(vec![0; MAX + 1].into()), "payload.binary"),
            (Body::Json("1".repeat(MAX + 1)), "payload.json"),
        ] {
            let violation = read(body, "").unwrap_err();
            assert_eq!(violation.code, ErrorCode::PayloadTooLarge);
            assert_eq!(violation.field, field);
        }
    }

    #[test]
    fn no_payload_and_a_payload_without_body_differ() {
        assert_eq!(payload(None, MAX, "payload"), Ok(None));
        let bare = Some(v1::Payload::default());
        let violation = payload(bare, MAX, "payload").unwrap_err();
        assert_eq!(violation.code, ErrorCode::FieldMissing);
        let violation = required_payload(None, MAX, "payload").unwrap_err();
        assert_eq!(violation.field, "payload");
    }

    #[test]
    fn content_types_are_defaulted_and_checked() {
        let own = read(Body::Text("<a/>".into()), "application/xml").unwrap().unwrap();
        assert_eq!(own.content_type(), "application/xml");
        assert_eq!(v1::Payload::from(&own).content_type, "application/xml");
        let usual = read(Body::Text(String::new()), "").unwrap().unwrap();
        assert_eq!(usual.content_type(), "text/plain; charset=utf-8");
        for bad in ["a\r\nb", "é", &"x".repeat(MAX_CONTENT_TYPE_BYTES + 1)] {
            let violation = read(Body::Text(String::new()), bad).unwrap_err();
            assert_eq!(violation.field, "payload.content_type", "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn payloads_come_back(text in ".{0,16}", data in prop::collection::vec(any::<u8>(), 0..MAX)) {
            for sent in [
                Payload::text(text.as_str().into()),
                Payload::binary(data.into()).with_content_type(Some("image/png")),
            ] {
                let back = payload(Some((&sent).into()), MAX, "payload");
                prop_assert_eq!(back, Ok(Some(sent)));
            }
        }
    }
}
