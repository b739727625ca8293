//! The one label whose values are numbers: which of an edge's workers. Closed like the others, at
//! the most workers that an edge can have.

use super::family::LabelSet;

/// A worker of an edge, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerIndex(u8);

/// The values of the label; their count is the most workers of an edge.
const NAMES: [&str; 64] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "17", "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32",
    "33", "34", "35", "36", "37", "38", "39", "40", "41", "42", "43", "44", "45", "46", "47", "48",
    "49", "50", "51", "52", "53", "54", "55", "56", "57", "58", "59", "60", "61", "62", "63",
];

// === impl WorkerIndex ===

impl WorkerIndex {
    /// The worker with this number; numbers beyond 63 share the last series.
    pub fn new(index: u16) -> Self {
        Self(u8::try_from(index).unwrap_or(u8::MAX).min(63))
    }
}

impl LabelSet for WorkerIndex {
    const COUNT: usize = NAMES.len();

    fn index(self) -> usize {
        usize::from(self.0)
    }

    fn at(index: usize) -> Self {
        Self(u8::try_from(index).unwrap_or(u8::MAX).min(63))
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("worker", NAMES[self.index()])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_its_number() {
        for index in 0..64u16 {
            let name = NAMES[WorkerIndex::new(index).index()];
            assert_eq!(name, index.to_string());
        }
        assert_eq!(WorkerIndex::new(9_999), WorkerIndex::new(63));
    }
}
