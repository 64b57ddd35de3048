//! An allocator for programs that live for milliseconds: it only moves a pointer, and gives nothing back.
//!
//! The C library's allocator costs a start of the runtime 0.3 ms, more than all of its parsing. A program that goes on
//! for long must not allocate in its loop.
//!
//! # Safety
//! `GlobalAlloc` is an unsafe trait; memory comes from anonymous mappings, each byte of which is handed out once.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// The allocator; make it the `#[global_allocator]`.
#[derive(Debug)]
pub struct Bump {
    taken: AtomicBool,
    free: UnsafeCell<Region>,
}

#[derive(Debug, Clone, Copy)]
struct Region {
    next: usize,
    end: usize,
}

// SAFETY: `free` is only touched between `lock` and `unlock`, which let one thread through at a time.
unsafe impl Sync for Bump {}

impl Bump {
    /// An allocator without memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            free: UnsafeCell::new(Region { next: 0, end: 0 }),
        }
    }

    fn with_region<T>(&self, then: impl FnOnce(&mut Region) -> T) -> T {
        while self.taken.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: the flag was false and is now true, so no other thread is between these two swaps, and `then` cannot
        // come back here: it does not allocate.
        let region = unsafe { &mut *self.free.get() };
        let result = then(region);
        self.taken.store(false, Ordering::Release);
        result
    }
}

impl Default for Bump {
    fn default() -> Self {
        Self::new()
    }
}

impl Region {
    fn take(&mut self, layout: Layout) -> *mut u8 {
        let start = self.next.next_multiple_of(layout.align());
        if let Some(end) = start.checked_add(layout.size()).filter(|end| *end <= self.end) {
            self.next = end;
            return start as *mut u8;
        }
        let Some(wanted) = layout.size().checked_add(layout.align()) else {
            return null_mut();
        };
        let Some(size) = wanted.max(CHUNK).checked_next_multiple_of(4096) else {
            return null_mut();
        };
        let Some(start) = map(size) else { return null_mut() };
        (self.next, self.end) = (start, start + size);
        self.take(layout)
    }
}

// SAFETY: every block lies in a mapping of its own size and alignment, and no two overlap: `next` only grows, but for the
// last block, which grows in place.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with_region(|region| region.take(layout))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // Never handed out before, and the kernel gives zeroed pages.
        self.with_region(|region| region.take(layout))
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let grown = self.with_region(|region| {
            let start = block as usize;
            let is_last = start + layout.size() == region.next;
            match start
                .checked_add(new_size)
                .filter(|end| new_size >= layout.size() && is_last && *end <= region.end)
            {
                Some(end) => {
                    region.next = end;
                    block
                }
                None if new_size <= layout.size() => block,
                None => match Layout::from_size_align(new_size, layout.align()) {
                    Ok(layout) => region.take(layout),
                    Err(_) => null_mut(),
                },
            }
        });
        if !grown.is_null() && grown != block {
            // SAFETY: both blocks are at least layout.size() long (a moved one is larger), valid, and do not overlap:
            // the new one was never handed out before.
            unsafe { std::ptr::copy_nonoverlapping(block, grown, layout.size()) };
        }
        grown
    }
}

fn map(size: usize) -> Option<usize> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
    let start = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    (start != libc::MAP_FAILED).then_some(start as usize)
}

const CHUNK: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_apart_and_keep_their_content() {
        let bump = Bump::new();
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        // SAFETY: layouts have a size above zero; each block is used within its size.
        let first = unsafe { bump.alloc(layout(3, 1)) };
        // SAFETY: as above.
        let second = unsafe { bump.alloc(layout(64, 64)) };
        assert_eq!(second as usize % 64, 0);
        assert!(second as usize >= first as usize + 3);
        // SAFETY: the block is 3 bytes long.
        unsafe { first.write_bytes(7, 3) };
        // SAFETY: the block is of this allocator and layout.
        let moved = unsafe { bump.realloc(first, layout(3, 1), 2 * CHUNK) };
        assert_ne!(moved, first);
        // SAFETY: the first three bytes were copied from the old block.
        assert_eq!(unsafe { std::slice::from_raw_parts(moved, 3) }, [7, 7, 7]);
    }
}
