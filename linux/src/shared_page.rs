//! A page of memory that two processes share.
//!
//! # Safety
//! The page is mapped as long as the object lives, and only reached through atomic bytes: what the other process does to
//! it meanwhile changes values and nothing else. `MAP_SHARED` makes a forked copy of the object mean the same memory.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU8, Ordering};

/// One page, of zeros at first.
#[derive(Debug)]
pub struct SharedPage {
    start: NonNull<AtomicU8>,
}

// SAFETY: it owns its mapping, which is no thread's in particular, and is reached by atomic operations alone.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// Its length in bytes.
    pub const LENGTH: usize = 4096;

    /// Memory of this process and its forked copies.
    ///
    /// # Errors
    /// mmap(2).
    pub fn anonymous() -> io::Result<Self> {
        Self::map(libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)
    }

    /// The first page of a file that is open for reading and writing, which this fills with zeros. A full disk is an
    /// error here, not a signal later.
    ///
    /// # Errors
    /// pwrite(2), mmap(2).
    pub fn of_file(file: BorrowedFd<'_>) -> io::Result<Self> {
        if rustix::io::pwrite(file, &[0; Self::LENGTH], 0)? != Self::LENGTH {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Self::map(libc::MAP_SHARED, file.as_raw_fd())
    }

    fn map(flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(null_mut(), Self::LENGTH, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<AtomicU8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start })
    }

    /// Its bytes. To store one is no system call and allocates nothing.
    #[must_use]
    pub fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: the mapping has this length, is readable and writable, and lives as long as `self`. An AtomicU8 has
        // the layout of a byte and any value is valid.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), Self::LENGTH) }
    }

    /// A copy of its bytes.
    #[must_use]
    pub fn copy(&self) -> Vec<u8> {
        self.bytes()
            .iter()
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect()
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), Self::LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn what_is_stored_is_in_the_file() {
        let file = tempfile();
        let page = SharedPage::of_file(file.as_fd()).unwrap();
        page.bytes()[7].store(b'x', Ordering::Relaxed);
        let mut read = [0; 8];
        rustix::io::pread(&file, &mut read, 0).unwrap();
        assert_eq!(&read, b"\0\0\0\0\0\0\0x");
        assert_eq!(page.copy().len(), SharedPage::LENGTH);
        assert!(
            SharedPage::anonymous()
                .unwrap()
                .copy()
                .iter()
                .all(|byte| *byte == 0)
        );
    }

    fn tempfile() -> std::os::fd::OwnedFd {
        rustix::fs::memfd_create(c"page", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
    }
}
