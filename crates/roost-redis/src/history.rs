//! The entries of a device's history, as `remember` of `prelude.lua` writes them: the time, what it is,
//! and its parts, each as `<len>:<text>`, so that no word can pass for another one's end.
//!
//! | what | parts |
//! |---|---|
//! | `C` connected | session, node, incarnation, protocol, address |
//! | `T` taken over | the same, and the session that lost |
//! | `R` reclaimed | session, node, incarnation, the session that lost or nothing |
//! | `D` disconnected | session, time, code, who, reason |
//! | `X` a command's step | id, state, session or nothing |
//! | `N` refused | session, what, code, about |

use std::sync::Arc;

use roost_cluster::{
    HistoryEntry, HistoryEvent, Initiator, LastClose, NodeRef, Refusal, StoreError,
};
use roost_types::{SessionId, UnixMillis};

use crate::codec;
use crate::error::corrupt;
use crate::keys::{command_id, counted};
use crate::reply::parse;
use crate::sessions::{parse_node, session_id};

type Result<T> = std::result::Result<T, StoreError>;

/// The parts of an entry that are not read yet.
struct Parts<'a>(&'a str);

// === impl Parts ===

impl<'a> Parts<'a> {
    fn text(&mut self) -> Result<&'a str> {
        let (part, rest) =
            counted(self.0).ok_or_else(|| corrupt("a history entry is cut off or malformed"))?;
        self.0 = rest;
        Ok(part)
    }

    fn word(&mut self) -> Result<Arc<str>> {
        self.text().map(Into::into)
    }

    fn session(&mut self) -> Result<SessionId> {
        session_id(self.text()?)
    }

    /// `None` where nothing stands there.
    fn maybe_session(&mut self) -> Result<Option<SessionId>> {
        Some(self.text()?).filter(|text| !text.is_empty()).map(session_id).transpose()
    }

    fn node(&mut self) -> Result<NodeRef> {
        parse_node(self.text()?.to_owned(), self.text()?)
    }

    fn time(&mut self) -> Result<UnixMillis> {
        parse(self.text()?).map(UnixMillis)
    }

    fn close(&mut self) -> Result<LastClose> {
        let (time, code, who) = (self.time()?, parse(self.text()?)?, self.text()?);
        let initiator =
            Initiator::parse(who).ok_or_else(|| corrupt(format!("{who:?} is no initiator")))?;
        Ok(LastClose { time, code, initiator, reason: self.word()? })
    }
}

/// Reads one entry.
pub(crate) fn read(entry: &[u8]) -> Result<HistoryEntry> {
    let text = std::str::from_utf8(entry).map_err(|_| corrupt("a history entry is not UTF-8"))?;
    let mut parts = Parts(text);
    let time = parts.time()?;
    let event = event(&mut parts)?;
    if parts.0.is_empty() {
        return Ok(HistoryEntry { time, event });
    }
    Err(corrupt("a history entry has more parts than it should"))
}

fn event(parts: &mut Parts<'_>) -> Result<HistoryEvent> {
    Ok(match parts.text()? {
        "C" => HistoryEvent::Connected {
            session: parts.session()?,
            node: parts.node()?,
            protocol: parts.word()?,
            address: parts.word()?,
        },
        "T" => HistoryEvent::TakenOver {
            session: parts.session()?,
            node: parts.node()?,
            protocol: parts.word()?,
            address: parts.word()?,
            replaced: parts.session()?,
        },
        "R" => HistoryEvent::Reclaimed {
            session: parts.session()?,
            node: parts.node()?,
            replaced: parts.maybe_session()?,
        },
        "D" => HistoryEvent::Disconnected { session: parts.session()?, close: parts.close()? },
        "X" => HistoryEvent::Command {
            id: command_id(parts.text()?)?,
            state: codec::state(parse(parts.text()?)?)?,
            session: parts.maybe_session()?,
        },
        "N" => HistoryEvent::Refused {
            session: parts.session()?,
            refusal: Refusal { what: parts.word()?, code: parts.word()?, about: parts.word()? },
        },
        other => return Err(corrupt(format!("{other:?} is no kind of history entry"))),
    })
}

#[cfg(test)]
mod tests {
    use roost_types::{CommandId, CommandState};

    use super::*;

    fn entry(parts: &[&str]) -> Vec<u8> {
        let part = |part: &&str| format!("{}:{part}", part.len());
        parts.iter().map(part).collect::<String>().into_bytes()
    }

    const SESSION: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn the_entries_are_pinned() {
        let session = session_id(SESSION).unwrap();
        let text = "2:42".to_owned() + "1:X" + "2:c1" + "1:5" + "32:" + SESSION;
        let found = read(text.as_bytes()).unwrap();
        let id = CommandId::new("c1").unwrap();
        let state = CommandState::Succeeded;
        let event = HistoryEvent::Command { id, state, session: Some(session) };
        assert_eq!(found, HistoryEntry { time: UnixMillis(42), event });
        let close = entry(&["42", "D", SESSION, "41", "1006", "hub", "gone 3:x\n\u{1f}"]);
        let HistoryEvent::Disconnected { close, .. } = read(&close).unwrap().event else {
            panic!("an end");
        };
        assert_eq!((close.code, &*close.reason), (1006, "gone 3:x\n\u{1f}"));
        assert_eq!((close.time, close.initiator), (UnixMillis(41), Initiator::Hub));
        for replaced in ["", SESSION] {
            let entry = entry(&["42", "R", SESSION, "n", "ff", replaced]);
            let HistoryEvent::Reclaimed { node, replaced: found, .. } = read(&entry).unwrap().event
            else {
                panic!("a reclaim");
            };
            assert_eq!((node.id.as_str(), node.incarnation), ("n", 255));
            assert_eq!(found.is_some(), !replaced.is_empty());
        }
    }

    #[test]
    fn a_spoiled_entry_is_an_error() {
        let whole = entry(&["42", "N", SESSION, "publish", "CODE", "a/é"]);
        assert!(read(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        for bad in [
            entry(&["42", "N", SESSION, "publish", "CODE", "a", "more"]),
            entry(&["42", "?", SESSION]),
            entry(&["x", "X", "c1", "0", ""]),
            entry(&["42", "X", "c1", "11", ""]),
            entry(&["42", "X", "c/1", "0", ""]),
            entry(&["42", "C", SESSION, "n", "zz", "p", "a"]),
            entry(&["42", "D", SESSION, "1", "1006", "nobody", "r"]),
            vec![0xff],
        ] {
            assert!(read(&bad).is_err(), "{}", String::from_utf8_lossy(&bad));
        }
    }
}
