//! The processes on the way to a payload, as their maker holds them.
//!
//! ```text
//!  maker            process in between                    the payload's process
//!   clone --------->  joins namespaces
//!                     clone(CLONE_PARENT) ------------->  a child of the maker
//!     <-------------  Cloned(pid, pidfd), exits
//! ```
//! There is a process in between only when one clone is not enough; it lives for less than a millisecond.

use super::{PayloadError, ToMaker, step};
use coracle_linux::namespace::Namespaces;
use coracle_linux::pidfd::{self, Signal};
use coracle_linux::process::{self, Child, Clone, Exit};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// One or two processes; the owner ends them, with [`end`](Self::end), or takes the one that is left.
#[derive(Debug, Default)]
pub(crate) struct Birth {
    between: Option<Child>,
    process: Option<Child>,
}

impl Birth {
    /// The payload's process was cloned by its maker.
    pub(crate) fn direct(process: Child) -> Self {
        Self {
            between: None,
            process: Some(process),
        }
    }

    /// This one will clone it, and say so.
    pub(crate) fn through(between: Child) -> Self {
        Self {
            between: Some(between),
            process: None,
        }
    }

    /// The process in between has said that it has made `process`. The former is done, and is collected here.
    pub(crate) fn cloned(&mut self, process: Child) {
        self.process = Some(process);
        if let Some(between) = self.between.take() {
            let _ = process::wait(between.pidfd.as_fd());
        }
    }

    /// The payload's process, once it exists.
    pub(crate) fn process(&self) -> Option<&Child> {
        self.process.as_ref()
    }

    pub(crate) fn take(&mut self) -> Option<Child> {
        self.process.take()
    }

    /// How the process ended that was at work and closed its socket without a word: the kernel killed it, or somebody
    /// did.
    pub(crate) fn exit(&self) -> Option<Exit> {
        let at_work = self.process.as_ref().or(self.between.as_ref());
        at_work.and_then(|process| process::wait(process.pidfd.as_fd()).ok())
    }

    /// Kills and collects whatever there is; `socket` is the maker's end.
    pub(crate) fn end(&mut self, socket: BorrowedFd<'_>) {
        if let Some(between) = self.between.take() {
            // Only it knows of what it has cloned, so it may say so first.
            let _ = pidfd::wait_end(between.pidfd.as_fd(), Some(Duration::from_secs(1)));
            end(&between);
            self.process = cloned(socket);
        }
        if let Some(process) = self.process.take() {
            end(&process);
        }
    }
}

fn end(process: &Child) {
    let _ = pidfd::send_signal(process.pidfd.as_fd(), Signal::KILL);
    let _ = process::wait(process.pidfd.as_fd());
}

/// The end of a sentence about a process that has ended.
pub(crate) fn describe(exit: Option<Exit>) -> String {
    match exit {
        Some(Exit::Code(code)) => format!(" (exit code {code})"),
        Some(Exit::Signal(signal)) => format!(" (killed by signal {signal})"),
        None => String::new(),
    }
}

fn cloned(socket: BorrowedFd<'_>) -> Option<Child> {
    loop {
        match ToMaker::receive(socket) {
            Ok(Some(ToMaker::Cloned(pid, pidfd))) => return Some(Child { pid, pidfd }),
            Ok(None | Some(ToMaker::End)) | Err(_) => return None,
            Ok(Some(_)) => {}
        }
    }
}

/// The whole life of a process in between: `join` (which may send messages of its own), the clone, the message about it.
/// Returns its exit code.
pub(crate) fn live_between<T>(
    socket: BorrowedFd<'_>,
    new: Namespaces,
    join: impl FnOnce() -> Result<T, PayloadError>,
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
        Ok(Child { pid, pidfd }) => ToMaker::Cloned(pid, pidfd).send(socket),
        Err(error) => ToMaker::Failed(error.chain()).send(socket),
    };
    u8::from(sent.is_err())
}
