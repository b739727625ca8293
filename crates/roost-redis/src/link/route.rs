//! Which master has which key: slots, and the table of who serves them.

use std::sync::Arc;

use redis::{Arg, Cmd};

use crate::target::Address;

use super::master::Master;

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;
/// In place of a master's index: nobody serves this slot.
const NOBODY: u16 = u16::MAX;

/// Who serves what: first come the masters, then for each slot which of them. Where there is but one
/// master, it has every slot.
#[derive(Clone)]
pub(super) struct Map {
    pub(super) masters: Vec<Arc<Master>>,
    /// `None`: all are the first master's.
    slots: Option<Box<[u16]>>,
}

/// Who should serve what, as servers or sentinels say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) masters: Vec<Address>,
    /// First and last slot, and whose; none where the one master has all.
    pub(super) ranges: Vec<(u16, u16, usize)>,
}

// === impl Map ===

impl Map {
    pub(super) fn empty() -> Self {
        Self { masters: Vec::new(), slots: None }
    }

    /// The same as `view`, whose masters are given in its order.
    pub(super) fn new(view: &View, masters: Vec<Arc<Master>>) -> Self {
        if view.ranges.is_empty() {
            return Self { masters, slots: None };
        }
        let mut slots = vec![NOBODY; usize::from(SLOTS)].into_boxed_slice();
        for (first, last, index) in &view.ranges {
            let index = u16::try_from(*index).unwrap_or(NOBODY);
            if let Some(range) = slots.get_mut(usize::from(*first)..=usize::from(*last)) {
                range.fill(index);
            }
        }
        Self { masters, slots: Some(slots) }
    }

    /// Whether there is more than one way to go.
    pub(super) fn is_sharded(&self) -> bool {
        self.slots.is_some()
    }

    pub(super) fn master_of(&self, slot: u16) -> Option<&Arc<Master>> {
        match &self.slots {
            None => self.masters.first(),
            Some(slots) => self.masters.get(usize::from(*slots.get(usize::from(slot))?)),
        }
    }

    pub(super) fn at(&self, address: &Address) -> Option<&Arc<Master>> {
        self.masters.iter().find(|master| master.address == *address)
    }

    /// Whether every slot is somebody's.
    pub(super) fn is_whole(&self) -> bool {
        let whole = |slots: &[u16]| !slots.contains(&NOBODY);
        !self.masters.is_empty() && self.slots.as_deref().is_none_or(whole)
    }

    /// Whether the same masters have the same slots.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let addresses = |map: &Self| -> Vec<Address> {
            map.masters.iter().map(|master| master.address.clone()).collect()
        };
        self.slots == other.slots && addresses(self) == addresses(other)
    }

    /// The same with one slot at another master; `None` if that is not known, or has it already.
    pub(super) fn with(&self, slot: u16, address: &Address) -> Option<Self> {
        let index = self.masters.iter().position(|master| master.address == *address)?;
        let index = u16::try_from(index).ok()?;
        let mut slots = self.slots.clone()?;
        let place = slots.get_mut(usize::from(slot))?;
        (std::mem::replace(place, index) != index)
            .then(|| Self { masters: self.masters.clone(), slots: Some(slots) })
    }
}

/// The slot of a key or channel: of what stands between its first `{` and the next `}`, if anything.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key[open..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &key[open..open + length])
    };
    crc16(tag().unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, which a cluster places keys by.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// The slot of a command of ours: by its first key, or its channel.
pub(super) fn slot_of(cmd: &Cmd) -> u16 {
    let simple = |arg| match arg {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    };
    let mut args = cmd.args_iter().filter_map(simple);
    let key = match args.next() {
        Some(b"EVALSHA" | b"EVAL") => args.nth(2),
        Some(b"XINFO") => args.nth(1),
        Some(b"XREAD") => args.skip_while(|word| !word.eq_ignore_ascii_case(b"STREAMS")).nth(1),
        _ => args.next(),
    };
    slot(key.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // By CLUSTER KEYSLOT.
        for (key, expected) in [
            ("foo", 12_182),
            ("{user1000}.following", 3_443),
            ("{user1000}.followers", 3_443),
            ("foo{}{bar}", 8_363),
            ("foo{{bar}}zap", 4_015),
            ("foo{bar}{zap}", 5_061),
            ("", 0),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn a_commands_key_is_found() {
        let slot_of_text = |words: &[&str]| {
            let mut cmd = redis::Cmd::new();
            for word in words {
                cmd.arg(*word);
            }
            slot_of(&cmd)
        };
        let foo = slot(b"foo");
        for words in [
            &["GET", "foo"][..],
            &["EVALSHA", "sha", "2", "foo", "x"],
            &["XINFO", "STREAM", "foo"],
            &["XREAD", "COUNT", "5", "STREAMS", "foo", "0-0"],
            &["SPUBLISH", "foo", "bar"],
        ] {
            assert_eq!(slot_of_text(words), foo, "{words:?}");
        }
    }
}
