//! Until when a certificate is good: as much of X.509 as that takes. Everything else in a certificate is
//! rustls' business.

use prost_types::Timestamp;

/// DER's tags for what is met on the way.
mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const VERSION: u8 = 0xa0;
}

/// What is taken from a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validity {
    /// Its serial number, as hexadecimal digits.
    pub(super) serial: String,
    /// From then on it is good, in seconds since 1970.
    pub(super) from: i64,
    /// Until then it is good, likewise.
    pub(super) until: i64,
}

impl Validity {
    /// Of a certificate in DER; `None` where it is none.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(certificate, tag::SEQUENCE)?;
        let (mut rest, _) = expect(certificate, tag::SEQUENCE)?;
        // The version is there in all but the oldest.
        if rest.first() == Some(&tag::VERSION) {
            rest = element(rest)?.2;
        }
        let (serial, rest) = expect(rest, tag::INTEGER)?;
        let (_signature_algorithm, rest) = expect(rest, tag::SEQUENCE)?;
        let (_issuer, rest) = expect(rest, tag::SEQUENCE)?;
        let (validity, _) = expect(rest, tag::SEQUENCE)?;
        let (from, rest) = time(validity)?;
        let (until, _) = time(rest)?;
        Some(Self { serial: hexadecimal(serial), from, until })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("a nibble is below 16");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// The first element: its tag, its content, and what follows.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // So many bytes of length follow; certificates have less than 16 MiB.
        let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let number = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        let length = (1..=3).contains(&length.len()).then(|| length.iter().fold(0, number))?;
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(input)?;
    (tag == wanted).then_some((content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the two forms that RFC 5280 §4.1.2.5 leaves.
fn time(input: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, content, rest) = element(input)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, text) = match tag {
        tag::UTC_TIME => {
            let (year, text) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text)
        }
        tag::GENERALIZED_TIME => {
            let (year, text) = text.split_at_checked(4)?;
            (year.parse().ok()?, text)
        }
        _ => return None,
    };
    if text.len() != 10 {
        return None;
    }
    let part = |at: usize| text.get(at..at + 2)?.parse::<u8>().ok();
    let time = Timestamp::date_time(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    Some((time.ok()?.seconds, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    fn made(until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(vec![0x12, 0xab]));
        params.not_before = date_time_ymd(2020, 2, 29);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let near = Validity::of(&made((2049, 12, 31))).unwrap();
        assert_eq!((near.from, near.until), (1_582_934_400, 2_524_521_600));
        assert_eq!(near.serial, "12ab");
        let far = Validity::of(&made((2050, 1, 1))).unwrap();
        assert_eq!(far.until, 2_524_608_000);
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let good = made((2040, 1, 1));
        for cut in 0..good.len().min(200) {
            assert_eq!(Validity::of(&good[..cut]), None, "the first {cut} bytes");
        }
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x80", b"garbage"] {
            assert_eq!(Validity::of(bytes), None, "{bytes:?}");
        }
    }
}
