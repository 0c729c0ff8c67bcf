//! Order among overlapping ranges of bytes: who came first goes first, readers share, everything else runs at once.

use peer::block::{PAYLOAD_BYTES_MAX, ZERO_BYTES_MAX};
use std::collections::BTreeMap;

/// One claim.
#[derive(Clone, Copy, Debug)]
struct Claim {
    end: u64,
    exclusive: bool,
    /// Earlier overlapping claims it waits for.
    waits_for: u32,
}

/// Claims by first byte and number. Numbers grow with arrival; no claim is longer than the longest payload, or while there
/// are zero ranges than the longest of those, so the neighbours that can overlap lie within that distance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    claims: BTreeMap<(u64, u64), Claim>,
    places: BTreeMap<u64, u64>,
    /// Claims longer than a payload.
    long: usize,
}

impl Ranges {
    /// Claims a range; true if it is granted at once, else `release` of another will name it.
    pub(crate) fn claim(&mut self, id: u64, offset: u64, length: u64, exclusive: bool) -> bool {
        let end = offset + length;
        let from = self.reach(offset);
        self.long += usize::from(length > u64::from(PAYLOAD_BYTES_MAX));
        let mut waits_for = 0;
        for (_, claim) in self.claims.range((from, 0)..(end, 0)) {
            if claim.end > offset && (exclusive || claim.exclusive) {
                waits_for += 1;
            }
        }
        self.claims.insert((offset, id), Claim { end, exclusive, waits_for });
        self.places.insert(id, offset);
        waits_for == 0
    }

    /// Gives a claim back; adds those that are granted by it to `granted`.
    pub(crate) fn release(&mut self, id: u64, granted: &mut Vec<u64>) {
        let Some(offset) = self.places.remove(&id) else { return };
        let Some(gone) = self.claims.remove(&(offset, id)) else { return };
        let from = self.reach(offset);
        self.long -= usize::from(gone.end - offset > u64::from(PAYLOAD_BYTES_MAX));
        for ((_, other), claim) in self.claims.range_mut((from, 0)..(gone.end, 0)) {
            if *other > id && claim.end > offset && (gone.exclusive || claim.exclusive) && claim.waits_for > 0
            {
                claim.waits_for -= 1;
                if claim.waits_for == 0 {
                    granted.push(*other);
                }
            }
        }
    }

    /// From where a claim may reach beyond `offset`.
    fn reach(&self, offset: u64) -> u64 {
        let longest = if self.long > 0 { ZERO_BYTES_MAX } else { PAYLOAD_BYTES_MAX };
        offset.saturating_sub(u64::from(longest))
    }

    pub(crate) fn len(&self) -> usize {
        self.claims.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_writers_go_in_order_and_readers_share() {
        let mut ranges = Ranges::default();
        assert!(ranges.claim(1, 0, 8192, true));
        assert!(ranges.claim(2, 8192, 4096, true));
        assert!(!ranges.claim(3, 4096, 8192, false));
        assert!(!ranges.claim(4, 4096, 512, false));
        assert!(!ranges.claim(5, 4096, 512, true));
        let mut granted = Vec::new();
        ranges.release(1, &mut granted);
        assert_eq!(granted, [4]);
        granted.clear();
        ranges.release(2, &mut granted);
        assert_eq!(granted, [3]);
        granted.clear();
        ranges.release(3, &mut granted);
        assert!(granted.is_empty());
        ranges.release(4, &mut granted);
        assert_eq!(granted, [5]);
        ranges.release(5, &mut granted);
        assert_eq!(ranges.len(), 0);
    }

    #[test]
    fn a_range_longer_than_any_payload_is_met_at_its_far_end() {
        let mut ranges = Ranges::default();
        let long = u64::from(ZERO_BYTES_MAX);
        assert!(ranges.claim(1, 4096, long, true));
        assert!(!ranges.claim(2, long, 4096, true));
        assert!(ranges.claim(3, long + 4096, 4096, true));
        assert!(!ranges.claim(4, 0, long, true));
        let mut granted = Vec::new();
        ranges.release(1, &mut granted);
        assert_eq!(granted, [4, 2]);
        granted.clear();
        // The far end of number 4, then right behind it.
        assert!(!ranges.claim(5, long - 512, 512, true));
        assert!(ranges.claim(6, long + 8192, 512, true));
        ranges.release(4, &mut granted);
        assert_eq!(granted, [5]);
        for id in [2, 3, 5, 6] {
            ranges.release(id, &mut granted);
        }
        assert_eq!((ranges.len(), ranges.long), (0, 0));
    }
}
