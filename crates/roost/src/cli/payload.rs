//! Payloads as arguments, and as people read them.

use std::io::Read as _;

use roost_proto::control::v1::Payload;
use roost_proto::control::v1::payload::Body;
use serde_json::value::RawValue;

use super::Failure;
use super::args::PayloadArgs;

/// The most characters of a payload in a table or a line for people.
const SHOWN: usize = 120;

/// The payload that the arguments give; `None` where they give none.
pub(super) fn read(args: &PayloadArgs) -> Result<Option<Payload>, Failure> {
    let Some(given) = &args.payload else {
        return Ok(None);
    };
    let bytes = bytes_of(given)?;
    let body = if args.binary {
        Body::Binary(bytes.into())
    } else {
        let not_text =
            |_| Failure::usage("the payload is not UTF-8 text; --binary sends bytes as they are");
        let text = String::from_utf8(bytes).map_err(not_text)?;
        if args.text { Body::Text(text) } else { json(text)? }
    };
    Ok(Some(Payload {
        body: Some(body),
        content_type: args.content_type.clone().unwrap_or_default(),
    }))
}

/// What `@FILE`, `-` or the argument itself hold.
fn bytes_of(given: &str) -> Result<Vec<u8>, Failure> {
    if let Some(file) = given.strip_prefix('@') {
        return std::fs::read(file)
            .map_err(|error| Failure::usage(format!("cannot read the payload {file}: {error}")));
    }
    if given == "-" {
        let mut bytes = vec![];
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    Ok(given.as_bytes().to_owned())
}

fn json(text: String) -> Result<Body, Failure> {
    match serde_json::from_str::<&RawValue>(text.trim()) {
        Ok(_) => Ok(Body::Json(text)),
        Err(error) => Err(Failure::usage(format!(
            "the payload is not JSON ({error}); quote it as in '{{\"a\":1}}', or say --text or --binary"
        ))),
    }
}

/// In a line, cut if it is long; empty for none.
pub(super) fn shown(payload: Option<&Payload>) -> String {
    match payload.and_then(|payload| payload.body.as_ref()) {
        None => String::new(),
        Some(Body::Json(text)) => cut(text),
        Some(Body::Text(text)) => cut(&format!("{text:?}")),
        Some(Body::Binary(bytes)) => format!("{} bytes", bytes.len()),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    let head: String = text.chars().take(SHOWN).collect();
    format!("{head}… ({} bytes)", text.len())
}
