//! Keeps a long-lived process small: a bounded heap, and memory given back that only its start needed.
#![allow(unsafe_code, reason = "the allocator's parameters, and madvise on mappings of this process")]

use crate::{Doing as _, Failure};
use std::os::raw::c_void;

/// Blocks of so many bytes and more are mapped one by one and given back as soon as they are freed: left to itself, the
/// allocator keeps the largest it ever saw.
const MAPPED_BYTES: i32 = 256 * 1024;

/// Makes the allocator keep little: one heap for all threads, large blocks given back at once. To be called before the first
/// thread is started.
pub fn bound_heap() {
    // SAFETY: both parameters are known to the allocator; it is told while nobody else uses it.
    let told =
        unsafe { [libc::mallopt(libc::M_ARENA_MAX, 1), libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES)] };
    if told.contains(&0) {
        tracing::debug!("the allocator keeps its own bounds");
    }
}

/// Unmaps the resident pages of the program and its libraries; those that still run come back one fault each, from the page
/// cache. Works on locked mappings too. Gives the bytes looked at.
///
/// # Errors
/// The mappings cannot be read, or the kernel (before 5.18) does not know how.
pub fn drop_program_pages() -> Result<u64, Failure> {
    let maps = std::fs::read_to_string("/proc/self/maps").doing(|| "read /proc/self/maps".into())?;
    let mut looked_at = 0;
    for (start, end) in maps.lines().filter_map(program) {
        // SAFETY: a private file mapping without write permission holds nothing but the file's bytes, which the next access
        // brings back; it belongs to the loader, which unmaps none of it.
        let answer = unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut::<c_void>(start),
                end - start,
                libc::MADV_DONTNEED_LOCKED,
            )
        };
        if answer != 0 {
            return Err(std::io::Error::last_os_error()).doing(|| "give back pages of the program".into());
        }
        looked_at += (end - start) as u64;
    }
    Ok(looked_at)
}

/// A mapping of machine code out of a file. Constants without write permission are left alone: relocations may have changed
/// them in memory.
fn program(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let path = words.nth(3)?;
    let (start, end) = range.split_once('-')?;
    let found = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (rights == "r-xp" && path.starts_with('/')).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_out_of_files_is_given_back() {
        let code = "55d0-55f0 r-xp 00001000 fe:00 1234 /usr/bin/futago";
        assert_eq!(program(code), Some((0x55d0, 0x55f0)));
        for other in [
            "55d0-55f0 r--p 00001000 fe:00 1234 /usr/bin/futago",
            "55d0-55f0 rwxp 00001000 fe:00 1234 /usr/bin/futago",
            "7ffe0-7fff0 r-xp 00000000 00:00 0 [vdso]",
            "55d0-55f0 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(program(other), None, "{other}");
        }
    }

    #[test]
    fn a_bounded_heap_still_gives_memory() {
        bound_heap();
        assert_eq!(vec![7_u8; 3 * MAPPED_BYTES as usize].iter().filter(|byte| **byte == 7).count(), 3 << 18);
    }

    #[test]
    fn a_process_runs_on_without_its_pages() {
        assert!(drop_program_pages().unwrap() > 0);
        assert_eq!(format!("{:?}", [1, 2, 3]), "[1, 2, 3]");
    }
}
