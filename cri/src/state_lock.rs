//! One daemon per `--state`. Another one there, with records of its own, would take the first one's pods for orphans and
//! end them.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long a lock may outlive its daemon: a child that a killed one was just starting has its descriptors until execve(2).
const LAST_CHILD: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Held until the daemon ends, however it ends.
#[derive(Debug)]
pub(crate) struct StateLock {
    _directory: File,
}

impl StateLock {
    /// Takes the directory; `None` when another daemon has it. On the directory itself (flock(2)), so nothing is left there.
    pub(crate) fn take(directory: &Path) -> io::Result<Option<StateLock>> {
        let file = File::open(directory)?;
        let end = Instant::now() + LAST_CHILD;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(StateLock { _directory: file })),
                Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
