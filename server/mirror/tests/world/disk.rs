//! A disk that keeps unflushed writes in a cache and loses any part of them at a crash; one word for each 512 bytes.

use mirror::action::ControlWrite;
use mirror::input::ZERO_HASH;

pub const SECTORS_PER_BLOCK: usize = 8;

pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub struct Disk {
    pub control: Vec<u8>,
    pub view: Vec<u64>,
    pub stable: Vec<u64>,
    /// Completed and not flushed, in order, with a number.
    pending: Vec<(u64, usize, Vec<u64>)>,
    written: u64,
}

impl Disk {
    pub fn new(control: Vec<u8>, sectors: usize) -> Disk {
        Disk { control, view: vec![0; sectors], stable: vec![0; sectors], pending: Vec::new(), written: 0 }
    }
    pub fn write(&mut self, at: usize, words: &[u64]) {
        self.view[at..at + words.len()].copy_from_slice(words);
        self.written += 1;
        self.pending.push((self.written, at, words.to_vec()));
    }
    /// What a flush that begins at this instant will make durable.
    pub fn mark(&self) -> u64 {
        self.written
    }
    pub fn flush(&mut self, mark: u64) {
        for (_, at, words) in self.pending.iter().filter(|(number, _, _)| *number <= mark) {
            self.stable[*at..*at + words.len()].copy_from_slice(words);
        }
        self.pending.retain(|(number, _, _)| *number > mark);
    }
    /// Power loss: each sector of each unflushed write made it to the platter or not.
    pub fn crash(&mut self, chance: &mut Chance) {
        let style = chance.below(3);
        for (_, at, words) in std::mem::take(&mut self.pending) {
            for (i, word) in words.iter().enumerate() {
                if style == 1 || (style == 2 && chance.one_in(2)) {
                    self.stable[at + i] = *word;
                }
            }
        }
        self.view = self.stable.clone();
    }
    pub fn store(&mut self, writes: &[ControlWrite]) {
        for write in writes {
            let at = write.offset as usize;
            self.control[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }
    /// A store broken by power loss: each 4096-byte block is new, old or torn.
    pub fn tear(&mut self, writes: &[ControlWrite], chance: &mut Chance) {
        for write in writes {
            let at = write.offset as usize;
            match chance.below(3) {
                0 => {}
                1 => self.control[at..at + write.bytes.len()].copy_from_slice(&write.bytes),
                _ => {
                    let cut = 512 * (1 + chance.below(7) as usize);
                    self.control[at..at + cut].copy_from_slice(&write.bytes[..cut]);
                }
            }
        }
    }
    pub fn hashes(&self, at: usize, count: usize) -> Vec<[u8; 16]> {
        let blocks = self.view[at..at + count].chunks(SECTORS_PER_BLOCK);
        blocks
            .map(|words| {
                if words.iter().all(|word| *word == 0) {
                    return ZERO_HASH;
                }
                let mut sum = [1u64, 2];
                for word in words {
                    sum[0] = Chance(sum[0] ^ word).next();
                    sum[1] = Chance(sum[1].wrapping_add(*word)).next();
                }
                let mut hash = [0; 16];
                hash[..8].copy_from_slice(&sum[0].to_le_bytes());
                hash[8..].copy_from_slice(&sum[1].to_le_bytes());
                hash
            })
            .collect()
    }
}
