//! The bits of one page of the dirty map, in the smallest of four forms: none, all, a sorted list, a bitmap.
//!
//! A page of 32,512 bits is what is stored and sent at once, so a form of its own for each page needs no gathering. The
//! list's capacity grows by an eighth, not by doubling: a map of 4 TiB with one block in a hundred set takes about
//! 700 bytes a page, 23 MiB in all, where a flat one takes 129 MiB.

use peer::block::MAP_PAGE_BYTES;

const WORDS: usize = MAP_PAGE_BYTES / 8;
/// A list longer than this takes more memory than the bitmap.
const LIST_MAX: usize = MAP_PAGE_BYTES / 2;
/// A bitmap with fewer bits becomes a list: half of the above, so that a page does not change its form back and forth.
const BITMAP_MIN: u32 = LIST_MAX as u32 / 2;

/// The bits of one page.
#[derive(Clone, Debug, Default)]
pub(crate) enum Bits {
    /// None is set.
    #[default]
    Empty,
    /// All are set.
    Full,
    /// These are set, ascending; never empty.
    List(Vec<u16>),
    /// Any number but none and all.
    Bitmap(Box<Bitmap>),
}

/// As stored on disk, with the number of bits set.
#[derive(Clone, Debug)]
pub(crate) struct Bitmap {
    count: u32,
    words: [u64; WORDS],
}

impl Bitmap {
    fn empty() -> Box<Bitmap> {
        Box::new(Bitmap { count: 0, words: [0; WORDS] })
    }

    fn set(&mut self, from: u32, to: u32) -> u32 {
        let mut fresh = 0;
        for (index, mask) in masks(from, to) {
            if let Some(word) = self.words.get_mut(index) {
                fresh += (mask & !*word).count_ones();
                *word |= mask;
            }
        }
        self.count += fresh;
        fresh
    }

    fn clear(&mut self, from: u32, to: u32) -> u32 {
        let mut gone = 0;
        for (index, mask) in masks(from, to) {
            if let Some(word) = self.words.get_mut(index) {
                gone += (mask & *word).count_ones();
                *word &= !mask;
            }
        }
        self.count -= gone;
        gone
    }

    fn next(&self, from: u32) -> Option<u32> {
        let mut index = (from / 64) as usize;
        let mut word = self.words.get(index)? & (u64::MAX << (from % 64));
        while word == 0 {
            index += 1;
            word = *self.words.get(index)?;
        }
        Some(index as u32 * 64 + word.trailing_zeros())
    }
}

/// `end` in all calls: bits the page has, the last page of a map fewer than the others.
impl Bits {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Bits::Empty)
    }

    pub(crate) fn is_set(&self, bit: u32) -> bool {
        match self {
            Bits::Empty => false,
            Bits::Full => true,
            Bits::List(list) => u16::try_from(bit).is_ok_and(|bit| list.binary_search(&bit).is_ok()),
            Bits::Bitmap(map) => {
                map.words.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 == 1)
            }
        }
    }

    /// Sets the bits from `from` to before `to`; gives how many were clear.
    pub(crate) fn set(&mut self, from: u32, to: u32, end: u32) -> u32 {
        let to = to.min(end);
        if from >= to {
            return 0;
        }
        let fresh = match self {
            Bits::Full => 0,
            Bits::Empty if to - from == end => {
                *self = Bits::Full;
                end
            }
            Bits::Empty if (to - from) as usize <= LIST_MAX => {
                let mut list = Vec::new();
                list.reserve_exact((to - from) as usize);
                list.extend((from..to).map(|bit| bit as u16));
                *self = Bits::List(list);
                to - from
            }
            Bits::Empty => {
                let mut map = Bitmap::empty();
                let fresh = map.set(from, to);
                *self = Bits::Bitmap(map);
                fresh
            }
            Bits::List(list) => {
                let (low, high) = places(list, from, to);
                let fresh = (to - from) as usize - (high - low);
                if list.len() + fresh <= LIST_MAX {
                    insert(list, low, high, from, to);
                    fresh as u32
                } else {
                    let mut map = bitmap_of(list);
                    let fresh = map.set(from, to);
                    *self = Bits::Bitmap(map);
                    fresh
                }
            }
            Bits::Bitmap(map) => map.set(from, to),
        };
        if let Bits::Bitmap(map) = self
            && map.count == end
        {
            *self = Bits::Full;
        }
        fresh
    }

    /// Clears the bits from `from` to before `to`; gives how many were set.
    pub(crate) fn clear(&mut self, from: u32, to: u32, end: u32) -> u32 {
        let to = to.min(end);
        if from >= to {
            return 0;
        }
        let gone = match self {
            Bits::Empty => 0,
            Bits::Full if to - from == end => {
                *self = Bits::Empty;
                end
            }
            Bits::Full => {
                let mut map = Bitmap::empty();
                map.set(0, end);
                let gone = map.clear(from, to);
                *self = Bits::Bitmap(map);
                gone
            }
            Bits::List(list) => {
                let (low, high) = places(list, from, to);
                list.drain(low..high);
                (high - low) as u32
            }
            Bits::Bitmap(map) => map.clear(from, to),
        };
        self.shrink();
        gone
    }

    /// Takes the smallest form after bits were cleared.
    fn shrink(&mut self) {
        match self {
            Bits::Empty | Bits::Full => {}
            Bits::List(list) if list.is_empty() => *self = Bits::Empty,
            Bits::List(list) => {
                if list.capacity() > 2 * list.len() + 16 {
                    list.shrink_to(list.len() + room(list.len()));
                }
            }
            Bits::Bitmap(map) if map.count == 0 => *self = Bits::Empty,
            Bits::Bitmap(map) if map.count < BITMAP_MIN => *self = Bits::List(list_of(map)),
            Bits::Bitmap(_) => {}
        }
    }

    /// The first set bit from `from` on.
    pub(crate) fn next(&self, from: u32, end: u32) -> Option<u32> {
        match self {
            Bits::Empty => None,
            Bits::Full => (from < end).then_some(from),
            Bits::List(list) => {
                let at = list.partition_point(|bit| u32::from(*bit) < from);
                list.get(at).map(|bit| u32::from(*bit))
            }
            Bits::Bitmap(map) => map.next(from),
        }
    }

    /// As stored and sent.
    pub(crate) fn bytes(&self, end: u32) -> Vec<u8> {
        let mut all = Bitmap::empty();
        match self {
            Bits::Empty => {}
            Bits::Full => {
                all.set(0, end);
            }
            Bits::List(list) => all = bitmap_of(list),
            Bits::Bitmap(map) => all.words = map.words,
        }
        all.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Sets every bit that is set in stored or sent bytes; gives how many were clear.
    pub(crate) fn merge(&mut self, bytes: &[u8], end: u32) -> u32 {
        if bytes.iter().all(|byte| *byte == 0) {
            return 0;
        }
        let mut all = match &*self {
            Bits::Full => return 0,
            Bits::Empty => Bitmap::empty(),
            Bits::List(list) => bitmap_of(list),
            Bits::Bitmap(map) => map.clone(),
        };
        let before = all.count;
        for (word, bytes) in all.words.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            *word |= u64::from_le_bytes(whole);
        }
        // What lies past the end means nothing.
        for (index, mask) in masks(end, MAP_PAGE_BYTES as u32 * 8) {
            if let Some(word) = all.words.get_mut(index) {
                *word &= !mask;
            }
        }
        all.count = all.words.iter().map(|word| word.count_ones()).sum();
        let fresh = all.count - before;
        *self = match all.count as usize {
            0 => Bits::Empty,
            count if count == end as usize => Bits::Full,
            count if count <= LIST_MAX => Bits::List(list_of(&all)),
            _ => Bits::Bitmap(all),
        };
        fresh
    }
}

/// Where the bits from `from` to before `to` stand in a list.
fn places(list: &[u16], from: u32, to: u32) -> (usize, usize) {
    let low = list.partition_point(|bit| u32::from(*bit) < from);
    if to - from == 1 {
        return (low, low + usize::from(list.get(low).is_some_and(|bit| u32::from(*bit) == from)));
    }
    (low, low + list.get(low..).map_or(0, |rest| rest.partition_point(|bit| u32::from(*bit) < to)))
}

/// Room for growth of a list: an eighth.
fn room(length: usize) -> usize {
    length / 8 + 4
}

/// Puts `from..to` in place of what stands at `low..high`.
fn insert(list: &mut Vec<u16>, low: usize, high: usize, from: u32, to: u32) {
    let fresh = (to - from) as usize - (high - low);
    if fresh == 0 {
        return;
    }
    if list.capacity() < list.len() + fresh {
        list.reserve_exact(fresh + room(list.len()));
    }
    if to - from == 1 {
        list.insert(low, from as u16);
    } else {
        list.splice(low..high, (from..to).map(|bit| bit as u16));
    }
}

fn bitmap_of(list: &[u16]) -> Box<Bitmap> {
    let mut map = Bitmap::empty();
    for bit in list {
        map.set(u32::from(*bit), u32::from(*bit) + 1);
    }
    map
}

fn list_of(map: &Bitmap) -> Vec<u16> {
    let mut list = Vec::new();
    list.reserve_exact(map.count as usize);
    for (index, word) in map.words.iter().enumerate() {
        let mut rest = *word;
        while rest != 0 {
            list.push((index * 64) as u16 + rest.trailing_zeros() as u16);
            rest &= rest - 1;
        }
    }
    list
}

/// The words that the bits from `from` to before `to` touch and the bits in each.
fn masks(from: u32, to: u32) -> impl Iterator<Item = (usize, u64)> {
    let words = if from < to { from / 64..to.div_ceil(64) } else { 0..0 };
    words.map(move |index| {
        let (low, high) = (from.max(index * 64) - index * 64, to.min(index * 64 + 64) - index * 64);
        let below = if high == 64 { u64::MAX } else { (1 << high) - 1 };
        (index as usize, below & (u64::MAX << low))
    })
}
