//! Frames: whatever arrives, in whatever pieces, nothing panics and memory stays bounded. The
//! first byte chooses role and extension, the second the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roost_wire::ws::{Decoder, Limits, Role, Rsv1};

const MAX: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let [flags, piece, bytes @ ..] = data else {
        return;
    };
    let role = if flags & 1 == 0 {
        Role::Server
    } else {
        Role::Client
    };
    let rsv1 = if flags & 2 == 0 {
        Rsv1::Refuse
    } else {
        Rsv1::Allow
    };
    let mut decoder = Decoder::new(
        role,
        Limits {
            max_message: MAX,
            rsv1,
        },
    );
    for piece in bytes.chunks(usize::from(*piece).max(1)) {
        let mut buffer = piece.to_vec();
        let mut at = 0;
        while at < buffer.len() {
            let Ok(step) = decoder.decode(&mut buffer[at..]) else {
                return;
            };
            assert!(step.consumed > 0);
            at += step.consumed;
        }
        assert!(decoder.held_bytes() <= MAX + 512);
    }
});
