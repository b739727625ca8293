//! The rules of RFC 6455, one by one, and the bounds on memory.

use super::*;

fn text(s: &str) -> Event<'static> {
    Event::Text(s.to_owned().into())
}

fn binary(b: &[u8]) -> Event<'static> {
    Event::Binary(b.to_vec().into())
}

/// Decodes server frames whole and byte by byte, and insists on the same outcome.
fn from_server(bytes: &[u8]) -> (Vec<Event<'static>>, Option<WsError>) {
    let whole = decode_cut(&mut client(1000), bytes, &[]);
    let single = decode_cut(&mut client(1000), bytes, &vec![1; bytes.len()]);
    assert_eq!(whole, single, "{bytes:02x?}");
    whole
}

fn refused(bytes: &[u8]) -> WsError {
    let (events, error) = from_server(bytes);
    assert_eq!(events, []);
    error.expect("an error")
}

#[test]
fn the_examples_of_the_rfc() {
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode_cut(&mut server(1000), &masked, &[]), (vec![text("Hello")], None));
    assert_eq!(from_server(b"\x81\x05Hello"), (vec![text("Hello")], None));
    assert_eq!(from_server(b"\x01\x03Hel\x80\x02lo"), (vec![text("Hello")], None));
    assert_eq!(from_server(b"\x89\x05Hello").0, [Event::Ping(b"Hello".as_slice().into())]);
    assert_eq!(from_server(b"\x8a\x00").0, [Event::Pong(b"".as_slice().into())]);
    let long = [&[0x82, 0x7e, 0x01, 0x00][..], &[7; 256]].concat();
    assert_eq!(from_server(&long).0, [binary(&[7; 256])]);
}

#[test]
fn a_whole_message_borrows_from_the_input_and_leaves_nothing_held() {
    let mut decoder = client(1000);
    let mut input = *b"\x81\x02hi\x82\x01";
    let step = decoder.decode(&mut input).unwrap();
    assert!(matches!(step.event, Some(Event::Text(Cow::Borrowed("hi")))));
    assert_eq!(step.consumed, 4);
    assert!(decoder.is_idle());
    let step = decoder.decode(&mut input[4..]).unwrap();
    assert_eq!((step.consumed, step.event), (2, None));
    assert!(!decoder.is_idle() && decoder.held_bytes() > 0);
    let step = decoder.decode(&mut input[..1]).unwrap();
    assert_eq!(step.event, Some(binary(b"\x81")));
    assert!(decoder.is_idle());
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn an_idle_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 32, "{} bytes", size_of::<Decoder>());
}

#[test]
fn masks_are_required_of_clients_and_forbidden_to_servers() {
    let (_, error) = decode_cut(&mut server(1000), b"\x81\x02hi", &[]);
    assert_eq!(error, Some(WsError::MaskMissing(Opcode::Text)));
    assert_eq!(refused(b"\x81\x82\0\0\0\0hi"), WsError::MaskForbidden(Opcode::Text));
}

#[test]
fn reserved_bits_and_opcodes_are_refused_at_the_first_byte() {
    for (byte, bits) in [(0xc1, 0b100), (0xa1, 0b010), (0x91, 0b001), (0xf1, 0b111)] {
        assert_eq!(refused(&[byte]), WsError::ReservedBits { bits, opcode: Opcode::Text });
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(refused(&[0x80 | opcode]), WsError::ReservedOpcode(opcode));
    }
}

#[test]
fn rsv1_is_the_extensions_where_it_is_allowed() {
    let limits = Limits { max_message: 1000, rsv1: Rsv1::Allow };
    let decode = |bytes: &[u8], cuts: &[usize]| {
        decode_cut(&mut Decoder::new(Role::Client, limits), bytes, cuts)
    };
    let extended = Event::Extended { kind: DataKind::Text, payload: b"\xff\xfe".to_vec().into() };
    assert_eq!(decode(b"\xc1\x02\xff\xfe", &[]), (vec![extended.clone()], None));
    assert_eq!(decode(b"\x41\x01\xff\x80\x01\xfe", &[2, 1]), (vec![extended], None));
    assert_eq!(decode(b"\x81\x02hi", &[]).0, [text("hi")]);
    for bytes in [&b"\xc9\x00"[..], b"\x01\x00\xc0\x00", b"\xa1\x00"] {
        assert!(matches!(decode(bytes, &[]).1, Some(WsError::ReservedBits { .. })));
    }
}

#[test]
fn lengths_are_minimal_and_below_2_to_the_63() {
    let not_minimal = |len, bytes| WsError::LengthNotMinimal { len, bytes };
    assert_eq!(refused(b"\x82\x7e\x00\x7d"), not_minimal(125, 2));
    assert_eq!(refused(b"\x82\x7f\0\0\0\0\0\0\xff\xff"), not_minimal(65_535, 8));
    let high = refused(b"\x82\x7f\x80\0\0\0\0\0\0\0");
    assert_eq!(high, WsError::LengthOutOfRange(1 << 63));
}

#[test]
fn control_frames_are_short_and_whole() {
    for (byte, opcode) in [(8, Opcode::Close), (9, Opcode::Ping), (10, Opcode::Pong)] {
        assert_eq!(refused(&[byte]), WsError::ControlFragmented(opcode));
        assert_eq!(refused(&[0x80 | byte, 0x7e]), WsError::ControlTooLong(opcode));
        assert_eq!(refused(&[0x80 | byte, 0x7f]), WsError::ControlTooLong(opcode));
    }
    let longest = [&[0x89, 0x7d][..], &[1; 125]].concat();
    assert_eq!(from_server(&longest).0, [Event::Ping(vec![1; 125].into())]);
}

#[test]
fn control_frames_may_come_between_fragments() {
    let (events, error) = from_server(b"\x01\x01a\x89\x01p\x00\x00\x8a\x01q\x80\x01b");
    let asked = Event::Ping(b"p".as_slice().into());
    let unasked = Event::Pong(b"q".as_slice().into());
    assert_eq!((events, error), (vec![asked, unasked, text("ab")], None));
}

#[test]
fn fragments_come_in_order() {
    assert_eq!(refused(b"\x80\x00"), WsError::ContinuationWithoutStart);
    assert_eq!(refused(b"\x00\x00"), WsError::ContinuationWithoutStart);
    let inside = |frame: &[u8]| refused(&[b"\x01\x01a", frame].concat());
    assert_eq!(inside(b"\x81\x01b"), WsError::DataInsideMessage(Opcode::Text));
    assert_eq!(inside(b"\x02\x01b"), WsError::DataInsideMessage(Opcode::Binary));
    let (events, error) = from_server(b"\x02\x00\x80\x00\x80\x00");
    assert_eq!((events, error), (vec![binary(b"")], Some(WsError::ContinuationWithoutStart)));
}

#[test]
fn text_is_utf8_and_refused_at_the_first_bad_byte() {
    let bad_at = |bytes: &[u8], at| assert_eq!(refused(bytes), WsError::TextNotUtf8 { at });
    bad_at(b"\x81\x03a\xc0\xaf", 1);
    bad_at(b"\x81\x03\xed\xa0\x80", 0);
    bad_at(b"\x81\x01\xe2", 0);
    bad_at(b"\x01\x02a\xe2\x80\x01\x82", 1);
    let split = b"\x01\x01\xf0\x00\x00\x00\x02\x9f\xa6\x80\x01\x8a";
    assert_eq!(from_server(split), (vec![text("\u{1f98a}")], None));
    // The frame announces 100 bytes; three are enough to refuse it.
    let mut decoder = client(1000);
    let (_, error) = decode_cut(&mut decoder, b"\x81\x64ab\xff", &[]);
    assert_eq!(error, Some(WsError::TextNotUtf8 { at: 2 }));
    let (_, error) = decode_cut(&mut client(1000), b"\x01\x64\xf4\x90", &[]);
    assert_eq!(error, Some(WsError::TextNotUtf8 { at: 0 }));
    assert_eq!(from_server(b"\x82\x02\xff\xfe").0, [binary(b"\xff\xfe")]);
}

#[test]
fn the_bound_holds_over_all_fragments_and_before_the_payload() {
    let too_large = |size| WsError::MessageTooLarge { size, max: 1000 };
    assert_eq!(refused(b"\x82\x7e\x03\xe9"), too_large(1001));
    assert_eq!(refused(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"), too_large(u64::MAX >> 1));
    let part = [&[0x02, 0x7e, 0x03, 0xe7][..], &[0; 999]].concat();
    assert_eq!(refused(&[&part[..], &[0x80, 0x02]].concat()), too_large(1001));
    let exact = [&part[..], &[0x80, 0x01, 0x00]].concat();
    assert_eq!(from_server(&exact).0, [binary(&[0; 1000])]);
    // A ping is not part of the message.
    let (events, _) = decode_cut(&mut client(0), b"\x89\x01p\x82\x00", &[]);
    assert_eq!(events.len(), 2);
}

#[test]
fn memory_grows_only_by_what_arrived_and_never_past_the_bound() {
    let max = 1 << 20;
    let mut decoder = client(max);
    let mut header = *b"\x82\x7f\0\0\0\0\0\x10\0\0";
    assert_eq!(decoder.decode(&mut header).unwrap().event, None);
    assert!(decoder.held_bytes() < 256, "the announced length must not be reserved");
    let mut arrived = 0;
    while arrived + 1000 < max {
        assert_eq!(decoder.decode(&mut [0; 1000]).unwrap().event, None);
        arrived += 1000;
        assert!(decoder.held_bytes() <= (2 * arrived).min(max) + 256);
    }
}

#[test]
fn empty_fragments_for_ever_hold_nothing_more() {
    let mut decoder = client(1000);
    decode_cut(&mut decoder, b"\x01\x01a", &[]);
    let held = decoder.held_bytes();
    let (events, error) = decode_cut(&mut decoder, &vec![0; 200_000], &[]);
    assert_eq!((events.len(), error), (0, None));
    assert_eq!(decoder.held_bytes(), held);
}

#[test]
fn sixteen_mebibytes_in_seventy_thousand_fragments() {
    let size = 16 << 20;
    let mut decoder = server(size);
    let mut sent = 0;
    let mut fragment = 0;
    let mut last = None;
    while sent < size {
        let len = (size - sent).min(240);
        let opcode = if sent == 0 { Opcode::Text } else { Opcode::Continuation };
        let frame = client_frame(sent + len == size, opcode, &vec![b'a'; len]);
        let (events, error) = decode_cut(&mut decoder, &frame, &[3, 100]);
        assert_eq!(error, None);
        last = events.into_iter().next();
        sent += len;
        fragment += 1;
    }
    assert!(fragment >= 69_000);
    assert!(matches!(last, Some(Event::Text(t)) if t.len() == size));
    assert!(decoder.is_idle());
}

#[test]
fn close_carries_nothing_or_a_code_and_a_reason() {
    let close = |code, reason: &str| Event::Close { code, reason: reason.to_owned().into() };
    assert_eq!(from_server(b"\x88\x00").0, [close(None, "")]);
    assert_eq!(from_server(b"\x88\x02\x03\xe8").0, [close(Some(1000), "")]);
    assert_eq!(from_server(b"\x88\x05\x0f\xa0bye").0, [close(Some(4000), "bye")]);
    assert_eq!(refused(b"\x88\x01"), WsError::CloseTooShort);
    assert_eq!(refused(b"\x88\x03\x03\xe8\xff"), WsError::CloseReasonNotUtf8);
}

#[test]
fn close_codes_that_must_not_be_sent_are_refused() {
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    let bad = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    for code in good.into_iter().chain([3000, 3999, 4000, 4999]) {
        let (events, _) = from_server(&encode_close(code, ""));
        assert!(matches!(events[..], [Event::Close { code: Some(c), .. }] if c == code));
    }
    for code in bad {
        assert_eq!(refused(&encode_close(code, "")), WsError::CloseCode(code));
    }
}

#[test]
fn nothing_is_read_after_a_close_or_an_error() {
    let mut decoder = client(1000);
    let (events, error) = decode_cut(&mut decoder, b"\x01\x01a\x88\x00\x83\xff\x81", &[]);
    assert_eq!((events.len(), error), (1, None));
    assert!(decoder.is_idle());
    let mut decoder = client(1000);
    assert!(decode_cut(&mut decoder, b"\x83", &[]).1.is_some());
    assert_eq!(decode_cut(&mut decoder, b"\x81\x01a", &[]), (vec![], None));
}

#[test]
fn errors_map_to_close_codes_and_say_what_would_be_right() {
    let max = 10;
    assert_eq!(WsError::MessageTooLarge { size: 11, max }.close_code(), 1009);
    assert_eq!(WsError::TextNotUtf8 { at: 3 }.close_code(), 1007);
    assert_eq!(WsError::CloseReasonNotUtf8.close_code(), 1007);
    assert_eq!(WsError::CloseCode(999).close_code(), 1002);
    let missing = WsError::MaskMissing(Opcode::Text).to_string();
    assert_eq!(
        missing,
        "a text frame from the client is not masked; clients must mask every frame"
    );
    let opcode = Opcode::Text;
    let bits = WsError::ReservedBits { bits: 0b100, opcode }.to_string();
    assert!(bits.starts_with("reserved bits 0b100 are set on a text frame"), "{bits}");
}

#[test]
fn frames_are_written_as_the_rfc_has_them() {
    assert_eq!(encode_message(Opcode::Text, b"Hello"), &b"\x81\x05Hello"[..]);
    let masked = encode_masked(Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
    assert_eq!(masked, &b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"[..]);
    for (len, head) in [
        (125, &b"\x82\x7d"[..]),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\0\0\0\0\0\x01\0\0"),
    ] {
        let frame = encode_message(Opcode::Binary, &vec![0; len]);
        assert_eq!(&frame[..head.len()], head);
        assert_eq!((head.len(), frame.len()), (header_len(len), head.len() + len));
    }
    assert_eq!(encode_close(1000, "bye"), &b"\x88\x05\x03\xe8bye"[..]);
    assert_eq!(encode_ping(&[1; 200]).len(), 127);
    assert_eq!(encode_pong(b"x"), &b"\x8a\x01x"[..]);
}

#[test]
fn a_long_close_reason_is_cut_at_a_character() {
    let reason = "é".repeat(100);
    let (events, error) = from_server(&encode_close(4400, &reason));
    assert_eq!(error, None);
    let expected = "é".repeat(61);
    assert!(matches!(&events[..], [Event::Close { reason, .. }] if *reason == expected));
}
