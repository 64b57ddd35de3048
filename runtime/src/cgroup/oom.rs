//! Noticing that the kernel killed something for want of memory.
//!
//! v1: an eventfd is registered at `memory.oom_control`; it fires when the cgroup, or one above it, is out of memory,
//! and also when the cgroup is removed. What counts is the counter `oom_kill` in the same file (since 4.13).

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};

use super::files::{read, write};
use super::freezer::gone_is_none;
use super::{Cgroup, CgroupError};

/// A registration; the descriptor is readable after something happened.
#[derive(Debug)]
pub struct OomWatch {
    event: OwnedFd,
    cgroup: Cgroup,
}

impl Cgroup {
    /// Registers for out-of-memory events. `None` where there is no v1 memory controller.
    ///
    /// # Errors
    /// The registration is refused.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        let Some(dir) = self.dir("memory") else {
            return Ok(None);
        };
        let file = dir.join("memory.oom_control");
        let failed = |errno: rustix::io::Errno| CgroupError::Read {
            file: file.clone(),
            source: errno.into(),
        };
        let control =
            rustix::fs::open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        write(&dir, "cgroup.event_control", &line, "memory.oom_control")?;
        Ok(Some(OomWatch {
            event,
            cgroup: self.clone(),
        }))
    }

    /// How many processes of this cgroup and those below it the kernel has killed for want of memory. `None` when
    /// the cgroup is gone or has no memory controller.
    ///
    /// # Errors
    /// The counter cannot be read.
    pub fn oom_kills(&self) -> Result<Option<u64>, CgroupError> {
        let Some(dir) = self.dir("memory") else {
            return Ok(None);
        };
        let text = gone_is_none(read(&dir, "memory.oom_control"))?;
        Ok(text.and_then(|text| super::stats::value(&text, "oom_kill")))
    }
}

impl OomWatch {
    /// Takes the event off the descriptor, so that it becomes readable with the next one only.
    pub fn clear(&self) {
        // Nothing to read means that it was taken already.
        let _taken = rustix::io::read(&self.event, &mut [0; 8]);
    }

    /// See [`Cgroup::oom_kills`].
    ///
    /// # Errors
    /// The counter cannot be read.
    pub fn count(&self) -> Result<Option<u64>, CgroupError> {
        self.cgroup.oom_kills()
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
