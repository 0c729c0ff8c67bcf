//! What the oracle's writers put into a block, so that every sector tells which write it is from.

/// Bytes of a block.
pub const BLOCK: usize = 4096;
/// Bytes of a sector: what a disk writes whole. A torn block has sectors of several writes.
pub const SECTOR: usize = 512;
/// Sectors of a block.
pub const SECTORS: usize = BLOCK / SECTOR;
const MAGIC: u64 = u64::from_le_bytes(*b"oracle-1");
/// Words before the filling: magic, set, block, sector, number.
const HEAD: usize = 5;
const WORDS: usize = SECTOR / 8;

/// Fills a block as this write's.
pub fn fill(into: &mut [u8], set: u64, block: u64, number: u64) {
    for (sector, bytes) in into.chunks_exact_mut(SECTOR).enumerate() {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ block << 20 ^ sector as u64 | 1;
        let head = [MAGIC, set, block, sector as u64, number];
        let mut sum = 0xcbf2_9ce4_8422_2325;
        for (at, word) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let value = match at {
                0..HEAD => head[at],
                _ if at == WORDS - 1 => sum,
                _ => {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state
                }
            };
            sum = mix(sum, value);
            *word = value.to_le_bytes();
        }
    }
}

fn mix(sum: u64, value: u64) -> u64 {
    (sum ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
}

/// The number of the write that a sector is from: 0 where nothing was ever written.
///
/// # Errors
/// It is no sector of this place, or its checksum is wrong; the text says what it is.
pub fn number(bytes: &[u8], set: u64, block: u64, sector: usize) -> Result<u64, String> {
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    if words.iter().all(|word| *word == 0) {
        return Ok(0);
    }
    let (head, last) = (&words[..HEAD], words[WORDS - 1]);
    let sum = words[..WORDS - 1].iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| mix(sum, *word));
    if head[..4] != [MAGIC, set, block, sector as u64] {
        return Err(format!("a sector of another place: {head:x?}"));
    }
    if sum != last {
        return Err(format!("write {} with a wrong checksum", head[4]));
    }
    Ok(head[4])
}

/// A buffer aligned for direct I/O.
pub struct Aligned {
    bytes: Vec<u8>,
    at: usize,
    length: usize,
}

impl Aligned {
    /// Of so many bytes.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length + BLOCK];
        let at = bytes.as_ptr().align_offset(BLOCK);
        Aligned { bytes, at, length }
    }

    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.at..self.at + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_names_its_write_and_its_place() {
        let mut block = vec![0; BLOCK];
        assert_eq!(number(&block[..SECTOR], 5, 7, 0), Ok(0));
        fill(&mut block, 5, 7, 99);
        for sector in 0..SECTORS {
            let bytes = &block[sector * SECTOR..][..SECTOR];
            assert_eq!(number(bytes, 5, 7, sector), Ok(99));
            assert!(number(bytes, 5, 8, sector).is_err() && number(bytes, 4, 7, sector).is_err());
            assert!(number(bytes, 5, 7, (sector + 1) % SECTORS).is_err());
        }
        block[300] ^= 1;
        assert!(number(&block[..SECTOR], 5, 7, 0).is_err());
    }
}
