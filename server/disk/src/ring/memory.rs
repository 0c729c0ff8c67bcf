//! Page-aligned buffers with one owner, fit for O_DIRECT; a pooled one goes back to its shelf when dropped.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of every buffer: a page, enough for any disk's direct I/O.
pub(crate) const ALIGN: usize = 4096;

/// The memory itself.
struct Raw {
    start: NonNull<u8>,
    length: usize,
    /// Index among the ring's registered buffers.
    fixed: Option<u16>,
}

// SAFETY: a Raw is the only owner of its memory; nothing in it is tied to a thread.
unsafe impl Send for Raw {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for Raw {}

impl Raw {
    fn new(length: usize) -> Option<Self> {
        let layout = Layout::from_size_align(length.max(ALIGN), ALIGN).ok()?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Raw { start, length: layout.size(), fixed: None })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Ok(layout) = Layout::from_size_align(self.length, ALIGN) {
            // SAFETY: allocated in `new` with this very layout, freed once.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

/// Free buffers of one size.
type Shelf = Mutex<Vec<Raw>>;

/// A buffer with one owner. Shared (as `Arc<Buffer>`) it can only be read.
pub(crate) struct Buffer {
    raw: Option<Raw>,
    home: Option<Arc<Shelf>>,
}

impl Buffer {
    /// A buffer of its own, outside any pool; its memory is freed with it.
    pub(crate) fn new(length: usize) -> Option<Self> {
        Raw::new(length.next_multiple_of(ALIGN)).map(|raw| Buffer { raw: Some(raw), home: None })
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.raw.as_ref().map_or(0, |raw| raw.length)
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is initialised (zeroed), lives as long as `self`, and is written only through `&mut self`.
        self.raw
            .as_ref()
            .map_or(&[], |raw| unsafe { std::slice::from_raw_parts(raw.start.as_ptr(), raw.length) })
    }

    /// Its bytes, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.raw {
            // SAFETY: as in `bytes`; `&mut self` is the only way to it.
            Some(raw) => unsafe { std::slice::from_raw_parts_mut(raw.start.as_ptr(), raw.length) },
            None => &mut [],
        }
    }

    /// Its first bytes, as many as it has.
    pub(crate) fn first(&self, length: usize) -> &[u8] {
        let bytes = self.bytes();
        bytes.get(..length).unwrap_or(bytes)
    }

    pub(super) fn pointer(&self) -> *mut u8 {
        self.raw.as_ref().map_or(std::ptr::null_mut(), |raw| raw.start.as_ptr())
    }

    pub(super) fn fixed(&self) -> Option<u16> {
        self.raw.as_ref().and_then(|raw| raw.fixed)
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({})", self.len())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let (Some(raw), Some(home)) = (self.raw.take(), &self.home) {
            home.lock().unwrap_or_else(PoisonError::into_inner).push(raw);
        }
    }
}

/// A fixed number of buffers of one size. What is taken comes back by itself.
pub(crate) struct Pool {
    shelf: Arc<Shelf>,
    length: usize,
}

impl Pool {
    /// `count` buffers of `length` bytes, all resident.
    pub(crate) fn new(count: usize, length: usize) -> Option<Self> {
        let mut free = Vec::with_capacity(count);
        for _ in 0..count {
            let raw = Raw::new(length)?;
            // Touched once, so that no write ever waits for the kernel to find a page.
            let mut buffer = Buffer { raw: Some(raw), home: None };
            buffer.bytes_mut().fill(0);
            free.extend(buffer.raw.take());
        }
        Some(Pool { shelf: Arc::new(Mutex::new(free)), length })
    }

    /// A free buffer, if there is one.
    pub(crate) fn take(&self) -> Option<Buffer> {
        let raw = self.shelf.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Buffer { raw: Some(raw), home: Some(self.shelf.clone()) })
    }

    /// Bytes of each buffer.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Where all free buffers are, for registering them; numbers them from `first`.
    pub(super) fn enlist(&self, first: u16, list: &mut Vec<libc::iovec>) {
        let mut free = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, raw) in (first..).zip(free.iter_mut()) {
            raw.fixed = Some(number);
            list.push(libc::iovec { iov_base: raw.start.as_ptr().cast(), iov_len: raw.length });
        }
    }

    /// Takes the numbers away again: the ring would not have them.
    pub(super) fn delist(&self) {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(|raw| raw.fixed = None);
    }
}

/// Buffers that are made when they are needed and kept for the next until they are cleared; who takes them bounds how many.
#[derive(Clone)]
pub(crate) struct Spare {
    shelf: Arc<Shelf>,
    length: usize,
}

impl Spare {
    /// None yet, each of `length` bytes.
    pub(crate) fn new(length: usize) -> Self {
        Spare { shelf: Arc::default(), length }
    }

    /// A buffer for so many bytes; a short one is made for the purpose and not kept. `None` without memory.
    pub(crate) fn take(&self, length: usize) -> Option<Buffer> {
        if length > self.length || length <= self.length / 16 {
            return Buffer::new(length);
        }
        let kept = self.shelf.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let raw = kept.or_else(|| Raw::new(self.length))?;
        Some(Buffer { raw: Some(raw), home: Some(self.shelf.clone()) })
    }

    /// Gives the memory of those not in use back.
    pub(crate) fn clear(&self) {
        let kept = std::mem::take(&mut *self.shelf.lock().unwrap_or_else(PoisonError::into_inner));
        drop(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_bounded_and_gets_back_what_is_dropped_even_when_it_was_shared() {
        let pool = Pool::new(2, 8192).unwrap();
        let mut first = pool.take().unwrap();
        first.bytes_mut()[8191] = 7;
        let shared = Arc::new(first);
        let second = pool.take().unwrap();
        assert!(pool.take().is_none());
        let other = shared.clone();
        drop(shared);
        assert!(pool.take().is_none());
        assert_eq!(other.bytes()[8191], 7);
        drop(other);
        assert_eq!(pool.take().unwrap().len(), 8192);
        drop(second);
    }

    #[test]
    fn spare_buffers_are_used_again_until_they_are_cleared() {
        let spare = Spare::new(64 * 1024);
        let mut first = spare.take(64 * 1024).unwrap();
        first.bytes_mut()[5] = 7;
        drop(first);
        assert_eq!(spare.take(20_000).unwrap().bytes()[5], 7);
        spare.clear();
        assert_eq!(spare.take(64 * 1024).unwrap().bytes()[5], 0);
        assert_eq!(spare.take(4096).unwrap().len(), 4096);
    }

    #[test]
    fn every_buffer_is_aligned() {
        assert_eq!(Buffer::new(1).unwrap().pointer() as usize % ALIGN, 0);
        assert_eq!(Pool::new(1, 4096).unwrap().take().unwrap().pointer() as usize % ALIGN, 0);
    }
}
