//! The states an exhaustive check has reached, as 64-bit fingerprints.

use std::hash::Hasher;

/// A quick hash of the numbers a state is made of; the same in every run.
#[derive(Debug, Default)]
pub struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        let product =
            u128::from(self.0.rotate_left(23) ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xe703_7ed1_a0b4_28db_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number));
    }
    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }
    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }
    fn write_isize(&mut self, number: isize) {
        self.mix(number as u64);
    }
}

/// Fingerprints of the states reached: a table of 64-bit numbers, which at ten million states err once in a hundred
/// thousand checks.
#[derive(Debug)]
pub struct Seen {
    slots: Vec<u64>,
    len: usize,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen::new()
    }
}

impl Seen {
    /// Empty.
    #[must_use]
    pub fn new() -> Seen {
        Seen { slots: vec![0; 1 << 16], len: 0 }
    }

    /// Puts one in; true if it was not there.
    pub fn insert(&mut self, fingerprint: u64) -> bool {
        if 2 * self.len >= self.slots.len() {
            let bigger = vec![0; 2 * self.slots.len()];
            for old in std::mem::replace(&mut self.slots, bigger) {
                if old != 0 {
                    let place = self.place(old);
                    self.slots[place] = old;
                }
            }
        }
        let fingerprint = fingerprint.max(1);
        let place = self.place(fingerprint);
        let fresh = self.slots[place] == 0;
        self.slots[place] = fingerprint;
        self.len += usize::from(fresh);
        fresh
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing was put in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn place(&self, fingerprint: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut place = fingerprint as usize & mask;
        while self.slots[place] != 0 && self.slots[place] != fingerprint {
            place = (place + 1) & mask;
        }
        place
    }
}
