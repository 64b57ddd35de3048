//! The processes on the way to a payload, as their maker holds them.
//!
//! ```text
//!  maker            process in between                    the payload's process
//!   clone --------->  joins namespaces
//!                     clone(CLONE_PARENT) ------------->  a child of the maker
//!     <-------------  Cloned(pid, pidfd), exits
//! ```
//! The one in between is only there when one clone is not enough. It exists for less than a millisecond.

use super::{ChildError, FromChild, step};
use coracle_linux::namespace::Namespaces;
use coracle_linux::pidfd::{self, Signal};
use coracle_linux::process::{self, Child, Clone, Exit};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// One or two processes; the owner ends them, with [`end`](Self::end), or takes the one that is left.
#[derive(Debug, Default)]
pub(crate) struct Birth {
    between: Option<Child>,
    child: Option<Child>,
}

impl Birth {
    /// The payload's process was cloned by its maker.
    pub(crate) fn direct(child: Child) -> Self {
        Self {
            between: None,
            child: Some(child),
        }
    }

    /// This one will clone it, and say so.
    pub(crate) fn through(between: Child) -> Self {
        Self {
            between: Some(between),
            child: None,
        }
    }

    /// The process in between has said that this is it; collects the former, which is done.
    pub(crate) fn cloned(&mut self, child: Child) {
        self.child = Some(child);
        if let Some(between) = self.between.take() {
            let _ = process::wait(between.pidfd.as_fd());
        }
    }

    /// The payload's process, once it exists.
    pub(crate) fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }

    pub(crate) fn take(&mut self) -> Option<Child> {
        self.child.take()
    }

    /// The end of the one that works at it now, which has closed its socket without a word: the kernel killed it, or
    /// somebody did.
    pub(crate) fn exit(&self) -> Option<Exit> {
        let process = self.child.as_ref().or(self.between.as_ref());
        process.and_then(|child| process::wait(child.pidfd.as_fd()).ok())
    }

    /// Kills and collects whatever there is; `socket` is the maker's end.
    pub(crate) fn end(&mut self, socket: BorrowedFd<'_>) {
        if let Some(between) = self.between.take() {
            // Only it knows of what it has cloned, so it may say so first.
            let _ = pidfd::wait_end(between.pidfd.as_fd(), Some(Duration::from_secs(1)));
            end(&between);
            self.child = cloned(socket);
        }
        if let Some(child) = self.child.take() {
            end(&child);
        }
    }
}

fn end(process: &Child) {
    let _ = pidfd::send_signal(process.pidfd.as_fd(), Signal::KILL);
    let _ = process::wait(process.pidfd.as_fd());
}

fn cloned(socket: BorrowedFd<'_>) -> Option<Child> {
    loop {
        match FromChild::receive(socket) {
            Ok(Some(FromChild::Cloned(pid, pidfd))) => return Some(Child { pid, pidfd }),
            Ok(None | Some(FromChild::End)) | Err(_) => return None,
            Ok(Some(_)) => {}
        }
    }
}

/// The whole life of a process in between: `join` (which may say what it likes on the way), the clone, the message.
/// What it returns is its exit code.
pub(crate) fn live_between<T>(
    socket: BorrowedFd<'_>,
    new: Namespaces,
    join: impl FnOnce() -> Result<T, ChildError>,
    payload: impl FnOnce(T) -> u8,
) -> u8 {
    let how = Clone {
        namespaces: new,
        cgroup: None,
        sibling: true,
    };
    let cloned = join()
        .and_then(|joined| process::clone(&how, || payload(joined)).map_err(step("making the process")));
    let sent = match cloned {
        Ok(Child { pid, pidfd }) => FromChild::Cloned(pid, pidfd).send(socket),
        Err(error) => FromChild::Failed(error.chain()).send(socket),
    };
    u8::from(sent.is_err())
}
