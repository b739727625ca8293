//! One test per rule, with bytes written out; `properties.rs` has what holds for all bytes.

mod properties;
mod rules;

use super::*;

/// Everything `bytes` decode to when they arrive in pieces of the sizes `cuts` (the rest in one
/// piece), with the error that ends them.
pub(super) fn decode_cut(
    decoder: &mut Decoder,
    bytes: &[u8],
    cuts: &[usize],
) -> (Vec<Event<'static>>, Option<WsError>) {
    let mut rest = bytes;
    let mut events = Vec::new();
    let mut cuts = cuts.iter();
    while !rest.is_empty() {
        let size = cuts.next().map_or(rest.len(), |&cut| cut.min(rest.len()));
        let (piece, after) = rest.split_at(size);
        rest = after;
        if let Err(error) = feed(decoder, piece, &mut events) {
            return (events, Some(error));
        }
    }
    (events, None)
}

fn feed(
    decoder: &mut Decoder,
    piece: &[u8],
    events: &mut Vec<Event<'static>>,
) -> Result<(), WsError> {
    let mut buffer = piece.to_vec();
    let mut at = 0;
    while at < buffer.len() {
        let step = decoder.decode(&mut buffer[at..])?;
        assert!(step.consumed > 0, "no progress");
        at += step.consumed;
        match step.event {
            Some(event) => events.push(event.into_owned()),
            None => assert_eq!(at, piece.len(), "input left without an event"),
        }
    }
    Ok(())
}

/// A frame as a client sends it, with a key that changes every byte.
pub(super) fn client_frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    FrameHead { fin, rsv1: false, opcode, mask: Some([0x37, 0xfa, 0x21, 0x3d]) }
        .frame(payload)
        .to_vec()
}

pub(super) fn server(max_message: usize) -> Decoder {
    Decoder::new(Role::Server, Limits::new(max_message))
}

pub(super) fn client(max_message: usize) -> Decoder {
    Decoder::new(Role::Client, Limits::new(max_message))
}
