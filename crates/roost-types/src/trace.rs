//! Which trace something belongs to, as W3C Trace Context writes it. Spans are made and exported in
//! `roost-telemetry`; here is only what travels: with commands, between nodes, to devices and back.

use std::fmt;

/// How many bytes [`TraceContext::to_bytes`] gives.
const BYTES: usize = 25;
/// How long a `traceparent` of the version 00 is.
const TEXT: usize = 55;
const SAMPLED: u8 = 1;

/// A place in a trace: the trace, the span that caused what follows, and whether it is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Names the trace; not all zeros.
    pub trace_id: [u8; 16],
    /// Names the span; not all zeros.
    pub span_id: [u8; 8],
    /// Whether whoever began the trace wants it recorded.
    pub sampled: bool,
}

// === impl TraceContext ===

impl TraceContext {
    /// Reads a `traceparent`: `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`, or what a later
    /// version begins with. `None` for anything else, which W3C says is to be ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let (known, rest) = (text.get(..TEXT)?, &text[TEXT..]);
        let mut parts = known.split('-');
        let [version] = hex::<1>(parts.next()?)?;
        let trace_id = hex::<16>(parts.next()?)?;
        let span_id = hex::<8>(parts.next()?)?;
        let [flags] = hex::<1>(parts.next()?)?;
        let rest_is_right = rest.is_empty() || version > 0 && rest.starts_with('-');
        let right = parts.next().is_none()
            && version != 0xff
            && rest_is_right
            && trace_id != [0; 16]
            && span_id != [0; 8];
        right.then_some(Self { trace_id, span_id, sampled: flags & SAMPLED != 0 })
    }

    /// 16 bytes of the trace, 8 of the span, 1 of flags: as nodes write it to each other.
    pub fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.span_id);
        bytes[24] = u8::from(self.sampled);
        bytes
    }

    /// Reads [`TraceContext::to_bytes`]; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&bytes[..16]);
        span_id.copy_from_slice(&bytes[16..24]);
        let right = trace_id != [0; 16] && span_id != [0; 8];
        right.then_some(Self { trace_id, span_id, sampled: bytes[24] & SAMPLED != 0 })
    }
}

/// As a `traceparent` header has it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        write_hex(f, &self.trace_id)?;
        f.write_str("-")?;
        write_hex(f, &self.span_id)?;
        f.write_str(if self.sampled { "-01" } else { "-00" })
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Lower-case hex digits, as many as make `N` bytes.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_comes_out_as_it_went_in() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert!(context.sampled);
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
        let unsampled = TraceContext::parse(&GOOD.replace("-01", "-00")).unwrap();
        assert!(!unsampled.sampled);
        // Further flags mean nothing to us; a later version may have more behind.
        assert_eq!(TraceContext::parse(&GOOD.replace("-01", "-03")), Some(context));
        let later = format!("01{}-more", &GOOD[2..]);
        assert_eq!(TraceContext::parse(&later), Some(context));
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            &format!("01{}x", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("-01", "-0g"),
            &GOOD.replace("-00f067aa0ba902b7", "00f067aa0ba902b7-"),
            &"é".repeat(28),
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad:?}");
        }
        assert_eq!(TraceContext::from_bytes(&[1; 24]), None);
        assert_eq!(TraceContext::from_bytes(&[0; 25]), None);
    }
}
