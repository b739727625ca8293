//! Reading what Redis writes on a connection for subscriptions (RESP2): lists of words, and the few
//! single words that answer PING and AUTH.

use bytes::Bytes;

/// No message of ours has more words; a longer one is not for us.
const MOST_WORDS: usize = 64;
/// The longest word that Redis takes and gives.
const MOST_BYTES: usize = 512 << 20;

/// One thing that Redis wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// A list of words; a number is the word of its digits, nothing the empty one.
    Words(Vec<Bytes>),
    /// `+OK`, a number, or a single word.
    Word(Bytes),
    /// An error, with its code first.
    Error(String),
}

/// Reads one frame from the front; `None` while it is not whole. With it comes its length.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>, String> {
    let mut at = 0;
    let Some(line) = line(bytes, &mut at) else {
        return Ok(None);
    };
    let frame = match split(line)? {
        (b'+' | b':', text) => Frame::Word(Bytes::copy_from_slice(text)),
        (b'-', text) => Frame::Error(String::from_utf8_lossy(text).into_owned()),
        (b'$', length) => match word(bytes, &mut at, length)? {
            Some(found) => Frame::Word(found),
            None => return Ok(None),
        },
        (b'*' | b'>', count) => {
            let count = number(count)?.unwrap_or(0);
            if count > MOST_WORDS {
                return Err(format!("a list of {count} words"));
            }
            let mut words = Vec::with_capacity(count);
            for _ in 0..count {
                let Some(found) = element(bytes, &mut at)? else {
                    return Ok(None);
                };
                words.push(found);
            }
            Frame::Words(words)
        }
        (kind, _) => return Err(format!("something of the kind {:?}", char::from(kind))),
    };
    Ok(Some((frame, at)))
}

/// One word of a list.
fn element(bytes: &[u8], at: &mut usize) -> Result<Option<Bytes>, String> {
    let Some(found) = line(bytes, at) else {
        return Ok(None);
    };
    match split(found)? {
        (b'+' | b':' | b'-', text) => Ok(Some(Bytes::copy_from_slice(text))),
        (b'_', _) => Ok(Some(Bytes::new())),
        (b'$', length) => word(bytes, at, length),
        (kind, _) => Err(format!("a list with something of the kind {:?}", char::from(kind))),
    }
}

fn word(bytes: &[u8], at: &mut usize, length: &[u8]) -> Result<Option<Bytes>, String> {
    let Some(length) = number(length)? else {
        return Ok(Some(Bytes::new()));
    };
    if length > MOST_BYTES {
        return Err(format!("a word of {length} bytes"));
    }
    let Some(found) = bytes.get(*at..*at + length + 2) else {
        return Ok(None);
    };
    *at += length + 2;
    Ok(Some(Bytes::copy_from_slice(&found[..length])))
}

/// The next line, without its end.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &bytes[*at..];
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}

fn split(line: &[u8]) -> Result<(u8, &[u8]), String> {
    line.split_first().map(|(kind, rest)| (*kind, rest)).ok_or_else(|| "an empty line".to_owned())
}

/// A length; `None` for the -1 that means nothing.
fn number(text: &[u8]) -> Result<Option<usize>, String> {
    if text == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    text.parse().map(Some).map_err(|_| format!("{text:?} where a length belongs"))
}

/// A command as Redis reads it.
pub(super) fn write(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Frame {
        Frame::Words(list.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect())
    }

    #[test]
    fn frames_are_read_whole_and_byte_by_byte() {
        let all: &[(&[u8], Frame)] = &[
            (b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", words(&["subscribe", "c", "1"])),
            (b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", words(&["pong", ""])),
            (b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n", words(&["unsubscribe", "", "0"])),
            (
                b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\na\r\nb\r\n",
                words(&["message", "c", "a\r\nb"]),
            ),
            (b"+OK\r\n", Frame::Word("OK".into())),
            (b"-MOVED 1 a:1\r\n", Frame::Error("MOVED 1 a:1".into())),
        ];
        for (bytes, frame) in all {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{frame:?} at {cut}");
            }
            let more = [bytes, &b"+OK"[..]].concat();
            assert_eq!(parse(&more), Ok(Some((frame.clone(), bytes.len()))));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bad in [
            &b"\r\n"[..],
            b"?x\r\n",
            b"$x\r\n",
            b"*9999\r\n",
            b"*1\r\n*0\r\n",
            b"$999999999999\r\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
