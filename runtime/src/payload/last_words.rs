//! What a process on its way to its payload says last, when it may be unable to say anything.
//!
//! ```text
//!  payload's process                             whoever waits for it
//!   closes what it does not keep
//!   waits at the gate
//!   loads the filter: from here on any system
//!   call may be denied, write(2) and exit(2) too
//!   execve                                       end of the socket or fifo: it runs ...
//!   fails: stores text and errno  --page-------> ... or there is a text in the page
//! ```
//! The page is shared memory, which needs no system call. Between a maker that stays and its child it has no name;
//! between `create` and `start` it is a file in the container's directory.

use coracle_linux::shared_page::SharedPage;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::Ordering;

/// The page: how the text ends ([`ERRNO`], 4 bytes), then the text up to a NUL.
#[derive(Debug)]
pub(crate) struct LastWords(SharedPage);

/// Where the text begins; before it, in the byte order of the machine, the errno that ends it or 0.
const TEXT: usize = 4;

impl LastWords {
    /// For a maker that stays.
    pub(crate) fn anonymous() -> io::Result<Self> {
        SharedPage::anonymous().map(Self)
    }

    /// For whoever reads this file, which is made.
    pub(crate) fn in_file(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        SharedPage::of_file(file.as_fd()).map(Self)
    }

    /// The whole of what went wrong.
    pub(crate) fn say(&self, text: &str) {
        self.store(text, 0);
    }

    /// What was denied, and how. Allocates nothing and calls nobody: the filter is loaded.
    pub(crate) fn denied(&self, doing: &str, error: &io::Error) {
        self.store(doing, error.raw_os_error().unwrap_or(libc::EPERM));
    }

    fn store(&self, text: &str, errno: i32) {
        let room = SharedPage::LENGTH - TEXT - 1;
        let text = text.as_bytes();
        let text = &text[..text.len().min(room)];
        let bytes = errno
            .to_ne_bytes()
            .into_iter()
            .chain(text.iter().copied())
            .chain([0]);
        for (place, byte) in self.0.bytes().iter().zip(bytes) {
            place.store(byte, Ordering::Relaxed);
        }
    }

    /// What was said, if anything.
    pub(crate) fn read(&self) -> Option<String> {
        read(&self.0.copy())
    }
}

/// What the first process of a container that was created by somebody else left in `path`, the file of its last words.
#[must_use]
pub(crate) fn read_last_words(path: &Path) -> Option<String> {
    read(&std::fs::read(path).ok()?)
}

fn read(page: &[u8]) -> Option<String> {
    let (errno, text) = page.split_first_chunk::<TEXT>()?;
    let text = text
        .split(|byte| *byte == 0)
        .next()
        .filter(|text| !text.is_empty())?;
    let text = String::from_utf8_lossy(text).into_owned();
    Some(match i32::from_ne_bytes(*errno) {
        0 => text,
        errno => {
            let error = io::Error::from_raw_os_error(errno);
            let hint = match errno {
                // What filters answer. Others (a missing interpreter) are the kernel's own.
                libc::EPERM | libc::ENOSYS => ": does linux.seccomp deny what it needs to start a program?",
                _ => "",
            };
            format!("{text}: {error}{hint}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_by_the_maker_and_in_the_file() {
        let words = LastWords::anonymous().unwrap();
        assert_eq!(words.read(), None);
        words.denied("exec \"/x\"", &io::Error::from_raw_os_error(libc::EPERM));
        let read = words.read().unwrap();
        assert!(read.starts_with("exec \"/x\": Operation not permitted"), "{read}");
        assert!(read.contains("linux.seccomp"), "{read}");

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-words");
        assert_eq!(read_last_words(&path), None);
        let words = LastWords::in_file(&path).unwrap();
        assert_eq!(read_last_words(&path), None);
        words.say(&"é".repeat(SharedPage::LENGTH));
        assert!(read_last_words(&path).unwrap().starts_with("ééé"));
        words.denied("exec", &io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(
            read_last_words(&path).unwrap(),
            "exec: No such file or directory (os error 2)"
        );
        assert!(LastWords::in_file(&path).is_err());
    }
}
