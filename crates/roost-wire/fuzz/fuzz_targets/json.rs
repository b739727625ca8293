//! Device messages: whatever arrives, nothing panics, and what is taken is written and read back
//! the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roost_wire::device::{PayloadLimits, json};

fuzz_target!(|text: &str| {
    let limits = PayloadLimits::default();
    for message in json::decode(text, &limits).into_iter().flatten() {
        let written = json::encode_from_device(&message);
        let written = str::from_utf8(&written).expect("JSON is UTF-8");
        assert_eq!(json::decode(written, &limits), [Ok(message)]);
    }
    json::decode_to_device(text, &limits);
});
