//! The one source of chance: a small generator, so that a seed is a whole run.

/// SplitMix64: every state is good, one addition and three mixing steps a number, and a stream is forked by its output.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Rng { state: seed ^ 0x6a09_e667_f3bc_c909 }
    }

    /// An independent stream: drawing from it does not move this one, so a longer fault plan leaves the delays alone.
    pub fn fork(&mut self) -> Rng {
        Rng::new(self.number())
    }

    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.number() % bound }
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `percent` of a hundred draws.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True in `per_mille` of a thousand draws.
    pub fn per_mille(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of a list; the list is not empty by construction of its callers.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// Sixteen random bytes, for generations and incarnations.
    pub fn id(&mut self) -> [u8; 16] {
        let (a, b) = (self.number(), self.number());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&a.to_le_bytes());
        bytes[8..].copy_from_slice(&b.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_run_and_a_fork_is_independent() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert_eq!(
            (0..9).map(|_| a.number()).collect::<Vec<_>>(),
            (0..9).map(|_| b.number()).collect::<Vec<_>>()
        );
        let mut fork = a.fork();
        let _ = b.fork();
        let _ = fork.number();
        assert_eq!(a.number(), b.number());
    }
}
