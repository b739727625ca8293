//! What a report says, as `report.lua` takes it: in full, and in what is left of it when Redis is full.

use prost::Message as _;
use roost_cluster::Report;
use roost_types::{CommandResult, Progress};

use crate::codec;
use crate::script::Call;

/// How many bytes of a device's words are written when Redis is full.
const WORDS: usize = 256;

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    progress: Vec<u8>,
    /// The same without a long note.
    small_progress: Vec<u8>,
    /// The result, as if nothing of it were missing.
    full: Vec<u8>,
    /// The same without its payload and without long words.
    small: Vec<u8>,
    /// Which of the two is kept.
    keep: Kept,
    /// Whether the device answered more than is kept.
    dropped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Full,
    Small,
}

// === impl Told ===

impl Told {
    pub(crate) fn new(report: &Report) -> Self {
        let mut told = Self {
            progress: Vec::new(),
            small_progress: Vec::new(),
            full: Vec::new(),
            small: Vec::new(),
            keep: Kept::Full,
            dropped: false,
        };
        match report {
            Report::Progress(progress) => {
                told.progress = codec::progress_bytes(progress);
                let note = progress.note.clone().filter(|note| note.len() <= WORDS);
                told.small_progress = codec::progress_bytes(&Progress { note, ..progress.clone() });
            }
            Report::Result(result) => {
                let full = CommandResult { payload_dropped: false, ..result.clone() };
                let error = result.error.as_deref().map(|error| cut(error, WORDS).into());
                let small = CommandResult { payload: None, error, ..full.clone() };
                told.full = codec::result(&full).encode_to_vec();
                told.small = codec::result(&small).encode_to_vec();
                told.dropped = result.payload_dropped;
            }
            Report::Sent | Report::Received => {}
        }
        told
    }

    /// Whether nothing could be left out.
    pub(crate) fn is_small(&self) -> bool {
        self.full == self.small && self.progress == self.small_progress
    }

    /// What is left of it when Redis is full.
    pub(crate) fn smaller(self) -> Self {
        let dropped = self.dropped || self.full != self.small;
        let progress = self.small_progress.clone();
        Self { progress, keep: Kept::Small, dropped, ..self }
    }

    /// Adds the arguments that say it.
    pub(crate) fn args(&self, call: Call) -> Call {
        let keep = match self.keep {
            Kept::Full => "full",
            Kept::Small => "small",
        };
        call.arg(&self.progress)
            .arg(&self.full)
            .arg(&self.small)
            .arg(keep)
            .number(self.dropped.into())
    }
}

/// As much of a text as fits into so many bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use roost_types::{Payload, ResultStatus, UnixMillis};

    use super::*;

    fn result(payload: Option<Payload>, error: Option<&str>) -> Told {
        Told::new(&Report::Result(CommandResult {
            payload,
            error: error.map(Into::into),
            ..CommandResult::new(ResultStatus::Failed)
        }))
    }

    #[test]
    fn only_what_is_large_is_left_out() {
        assert!(Told::new(&Report::Sent).is_small());
        let plain = result(None, Some("jammed"));
        assert!(plain.is_small() && !plain.clone().smaller().dropped);
        let large = result(Some(Payload::binary(Bytes::from(vec![0; 999]))), Some("jammed"));
        assert!(!large.is_small());
        let smaller = large.smaller();
        assert!(smaller.dropped);
        assert_eq!(smaller.small, plain.full);
        let words = "é".repeat(WORDS);
        assert!(result(None, Some(&words)).smaller().dropped);
        let note = Some(words.into());
        let progress = Progress { percent: Some(1), note, time: UnixMillis(1) };
        let noted = Told::new(&Report::Progress(progress)).smaller();
        assert!(noted.progress.len() < WORDS && !noted.progress.is_empty());
    }

    #[test]
    fn what_marks_a_result_as_cut_comes_last() {
        // `report.lua` adds it to the bytes.
        let mut marked = CommandResult {
            error: Some("jammed".into()),
            payload: Some(Payload::text("x".into())),
            ..CommandResult::new(ResultStatus::Failed)
        };
        let mut expected = codec::result(&marked).encode_to_vec();
        expected.extend(b" \x01");
        marked.payload_dropped = true;
        assert_eq!(codec::result(&marked).encode_to_vec(), expected);
    }

    #[test]
    fn a_cut_leaves_characters_whole() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 3), "");
    }
}
