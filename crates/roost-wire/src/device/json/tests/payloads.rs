//! The three kinds of payload: what passes unchanged, what is refused, and the bound.

use bytes::Bytes;
use roost_types::{Payload, PayloadKind};

use super::*;

/// Writes a payload of these decoded bytes as a field.
type Fields<'f> = &'f dyn Fn(&[u8]) -> String;

fn publish(fields: &str) -> String {
    format!(r#"{{"type":"publish","topic":"a",{fields}}}"#)
}

fn payload(fields: &str) -> Payload {
    match read(&publish(fields)) {
        Ok(FromDevice::Publish { payload, .. }) => payload,
        other => panic!("{fields}: {other:?}"),
    }
}

fn bad(fields: &str, words: &str) -> Reject {
    let reject = refused(&publish(fields));
    assert!(reject.message.contains(words), "{fields}: {}", reject.message);
    reject
}

#[test]
fn json_passes_byte_for_byte() {
    for json in [
        "null",
        "0",
        "-1.50E+2",
        "\"\\u0041\\/é\"",
        "{ \"b\" : 1 ,\n\t\"a\":[ ] ,\"a\":2}",
        "123456789012345678901234567890",
    ] {
        let payload = payload(&format!("\"payload\": {json} "));
        assert_eq!((payload.kind(), payload.as_str()), (PayloadKind::Json, Some(json)));
        assert_eq!(payload.content_type(), "application/json");
    }
}

#[test]
fn text_and_bytes_are_decoded() {
    let xml = payload(r#""text":"<a b=\"c\"\/>\n\ud83e\udd8a","content_type":"application/xml""#);
    assert_eq!((xml.kind(), xml.as_str()), (PayloadKind::Text, Some("<a b=\"c\"/>\n🦊")));
    assert_eq!(xml.content_type(), "application/xml");
    assert_eq!(payload(r#""text":"""#).content_type(), "text/plain; charset=utf-8");
    let bytes = payload(r#""base64":"AP\/+""#);
    assert_eq!((bytes.kind(), &bytes.data()[..]), (PayloadKind::Binary, &b"\x00\xff\xfe"[..]));
    assert_eq!(bytes.content_type(), "application/octet-stream");
    assert!(payload(r#""base64":"","text":null"#).is_empty());
}

#[test]
fn exactly_one_kind_of_payload() {
    let reject = bad(r#""text":"a","payload":1"#, "payload and text are both given");
    assert_eq!(reject.field.as_deref(), Some("text"));
    bad(r#""text":"a","base64":"YQ==""#, "text and base64 are both given");
    bad(r#""text":null"#, "give payload (any JSON), text (a string) or base64");
}

#[test]
fn payloads_that_cannot_be() {
    for base64 in ["YQ", "YQ=", "Y-_=", "YQ==YQ==", "YR==", " YQ==", "="] {
        let reject = bad(&format!(r#""base64":"{base64}""#), "padded with =");
        assert_eq!(reject.field.as_deref(), Some("base64"));
    }
    bad(r#""text":{}"#, "text is an object; it must be a string");
    bad(r#""base64":1"#, "base64 is 1; it must be a string");
    bad(r#""text":"","content_type":"a\nb""#, "a media type such as application/xml");
    let long = format!(r#""text":"","content_type":"{}""#, "x".repeat(256));
    bad(&long, "at most 255");
}

#[test]
fn the_bound_counts_decoded_bytes() {
    let limits = PayloadLimits::default();
    let at = |size: usize, fields: Fields<'_>| {
        decode(&publish(&fields(&vec![b'a'; size])), &limits).remove(0)
    };
    let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
    let json = |data: &[u8]| format!(r#""payload":"{}""#, text(&data[2..]));
    let escaped = |data: &[u8]| format!(r#""text":"{}""#, text(data).replace('a', "\\u0061"));
    let base64 = |data: &[u8]| {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        format!(r#""base64":"{data}""#)
    };
    let kinds: [Fields<'_>; 3] = [&json, &escaped, &base64];
    for fields in kinds {
        let Ok(FromDevice::Publish { payload, .. }) = at(65_536, fields) else {
            panic!("65,536 bytes are taken");
        };
        assert_eq!(payload.len(), 65_536);
        let reject = at(65_537, fields).unwrap_err();
        assert_eq!((reject.code, reject.fatal), (ErrorCode::PayloadTooLarge, false));
        assert_eq!(
            reject.message,
            "the payload has 65537 bytes (decoded); at most 65536 are taken"
        );
    }
}

#[test]
fn a_payload_from_elsewhere_is_checked_the_same_way() {
    let good = json_payload(" {\"a\" : 1}\n", &LIMITS).unwrap();
    assert_eq!(good, Payload::json(Text::from("{\"a\" : 1}")));
    for bad in ["", "{", "1 2", "undefined"] {
        let error = json_payload(bad, &LIMITS).unwrap_err();
        assert!(error.message.starts_with("the payload is not one JSON value"));
    }
    let large = json_payload(&"1".repeat(101), &LIMITS).unwrap_err();
    assert_eq!(large.code, ErrorCode::PayloadTooLarge);
    assert_eq!(Payload::binary(Bytes::new()).len(), 0);
}
