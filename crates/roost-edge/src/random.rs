//! Random numbers for jitter and shuffling, not for secrets.

use std::cell::Cell;

use roost_types::SessionId;

/// A xorshift generator.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

// === impl Random ===

impl Random {
    pub(crate) fn new() -> Self {
        let seed = u128::from_be_bytes(*SessionId::random().as_bytes());
        Self(Cell::new((seed >> 64) as u64 | 1))
    }

    /// A number below `bound`, or 0 for a bound of 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x.checked_rem(bound).unwrap_or(0)
    }

    pub(crate) fn shuffle<T>(&self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = self.below(last as u64 + 1);
            all.swap(last, usize::try_from(other).unwrap_or(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_keeps_everybody_and_moves_most() {
        let mut all: Vec<usize> = (0..1_000).collect();
        Random::new().shuffle(&mut all);
        let kept = all.iter().enumerate().filter(|(at, number)| at == *number).count();
        assert!(kept < 100, "{kept} stayed where they were");
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1_000));
    }
}
