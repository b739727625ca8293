//! Numbers that a seed determines (`SplitMix64`): what a run does by chance, it does again with the same
//! seed, as far as the processes' own timing lets it.

use parking_lot::Mutex;

/// A source of chance that many tasks share.
#[derive(Debug)]
pub struct Rng(Mutex<u64>);

// === impl Rng ===

impl Rng {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed ^ 0x5eed_0fa2_0055))
    }

    fn next(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` up to, not including, `high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    /// A place in something of this length.
    pub fn index(&self, len: usize) -> usize {
        usize::try_from(self.next() % len as u64).expect("it is less than a length")
    }

    /// Whether something happens that does so `rate` times in a thousand.
    pub fn happens(&self, rate: u64) -> bool {
        self.next() % 1_000 < rate
    }
}
