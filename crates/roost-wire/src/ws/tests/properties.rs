//! What holds for all bytes: splitting changes nothing, what is written is read back, nothing
//! panics.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A stream of valid client frames and the events they mean.
fn stream() -> impl Strategy<Value = (Vec<u8>, Vec<Event<'static>>)> {
    vec(exchange(), 0..6).prop_map(|parts| {
        let (bytes, events): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        (bytes.concat(), events.concat())
    })
}

/// A control frame, or a message in fragments with pings between them.
fn exchange() -> impl Strategy<Value = (Vec<u8>, Vec<Event<'static>>)> {
    prop_oneof![
        vec(any::<u8>(), 0..=125)
            .prop_map(|b| { (client_frame(true, Opcode::Pong, &b), vec![Event::Pong(b.into())],) }),
        (text_payload(), vec(0..200_usize, 0..4)).prop_map(|(text, cuts)| {
            let (bytes, mut events) = fragmented(Opcode::Text, text.as_bytes(), &cuts);
            events.push(Event::Text(text.into()));
            (bytes, events)
        }),
        (vec(any::<u8>(), 0..400), vec(0..200_usize, 0..4)).prop_map(|(data, cuts)| {
            let (bytes, mut events) = fragmented(Opcode::Binary, &data, &cuts);
            events.push(Event::Binary(data.into()));
            (bytes, events)
        }),
    ]
}

fn text_payload() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..100).prop_map(|chars| chars.into_iter().collect())
}

fn fragmented(opcode: Opcode, payload: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<Event<'static>>) {
    let (mut bytes, mut pings) = (Vec::new(), Vec::new());
    let (mut rest, mut next) = (payload, opcode);
    for &cut in cuts {
        let (part, after) = rest.split_at(cut.min(rest.len()));
        bytes.extend(client_frame(false, next, part));
        bytes.extend(client_frame(true, Opcode::Ping, b"between"));
        pings.push(Event::Ping(b"between".as_slice().into()));
        (rest, next) = (after, Opcode::Continuation);
    }
    bytes.extend(client_frame(true, next, rest));
    (bytes, pings)
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![vec(1..8_usize, 0..2000), vec(1..300_usize, 0..20)]
}

/// Bytes that are almost frames: the headers are often right.
fn near_frames() -> impl Strategy<Value = Vec<u8>> {
    let near = (any::<u8>(), 0..=255_u8, vec(any::<u8>(), 0..140)).prop_map(|(a, b, data)| {
        let mut bytes = vec![a & 0x8f, b | 0x80];
        bytes.extend(data);
        bytes
    });
    vec(near, 0..5).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events((bytes, events) in stream(), cuts in cuts()) {
        let mut decoder = server(1 << 20);
        prop_assert_eq!(decode_cut(&mut decoder, &bytes, &cuts), (events, None));
        prop_assert!(decoder.is_idle());
    }

    #[test]
    fn any_split_of_damaged_frames_gives_the_same_outcome(
        (mut bytes, _) in stream(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
        cuts in cuts(),
    ) {
        for (at, value) in damage.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let whole = decode_cut(&mut server(500), &bytes, &[]);
        prop_assert_eq!(whole, decode_cut(&mut server(500), &bytes, &cuts));
    }

    #[test]
    fn any_split_of_near_frames_gives_the_same_outcome(bytes in near_frames(), cuts in cuts()) {
        for (role, rsv1) in [(Role::Server, Rsv1::Refuse), (Role::Client, Rsv1::Allow)] {
            let limits = Limits { max_message: 300, rsv1 };
            let whole = decode_cut(&mut Decoder::new(role, limits), &bytes, &[]);
            let cut = decode_cut(&mut Decoder::new(role, limits), &bytes, &cuts);
            prop_assert_eq!(whole, cut);
        }
    }

    #[test]
    fn what_is_written_is_read(data in vec(any::<u8>(), 0..70_000), key in any::<[u8; 4]>()) {
        let event = Event::Binary(data.clone().into());
        let sent = encode_message(Opcode::Binary, &data);
        prop_assert_eq!(decode_cut(&mut client(70_000), &sent, &[]), (vec![event.clone()], None));
        let sent = encode_masked(Opcode::Binary, &data, key);
        prop_assert_eq!(decode_cut(&mut server(70_000), &sent, &[]), (vec![event], None));
    }
}

#[test]
fn a_million_bytes_of_garbage_never_panic_nor_hold_more_than_the_bound() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut garbage = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut total = 0_usize;
    while total < 1_000_000 {
        let limits = Limits { max_message: 2000, rsv1: Rsv1::Allow };
        let role = if garbage() % 2 == 0 { Role::Server } else { Role::Client };
        let mut decoder = Decoder::new(role, limits);
        for _ in 0..8 {
            let mut bytes: Vec<u8> = (0..64).flat_map(|_| garbage().to_le_bytes()).collect();
            bytes[0] &= 0x8f;
            total += bytes.len();
            if feed(&mut decoder, &bytes, &mut Vec::new()).is_err() {
                break;
            }
            assert!(decoder.held_bytes() <= 2000 + 125 + 256);
        }
    }
}
