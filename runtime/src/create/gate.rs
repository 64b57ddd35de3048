//! The gate between "created" and "running".
//!
//! Either the maker stays and says so over the socket, or somebody opens a fifo for reading, as `start` of the command
//! line does. Both report what becomes of the execve: the writing end closes by itself when it succeeds, and carries
//! the error when it does not.
//!
//! The fifo is opened before the clone and reopened through a procfs of our own: the container's may be fake.

use crate::payload::{FromMaker, ToMaker};
use crate::plan::Gate;
use crate::rootfs::sysctl::private_proc;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A closed gate, as the first process holds it.
#[derive(Debug)]
pub(super) enum Closed<'a> {
    Maker(BorrowedFd<'a>),
    Fifo { fifo: OwnedFd, proc: OwnedFd },
}

/// An open gate: where an error of the execve is reported.
#[derive(Debug)]
pub(super) enum Opened<'a> {
    Maker(BorrowedFd<'a>),
    Fifo(OwnedFd),
}

/// Opens the fifo, if that is the gate, by the maker: the first process may be nobody to whom the directory belongs.
pub(super) fn open(gate: &Gate) -> io::Result<Option<OwnedFd>> {
    let Gate::Fifo { path, .. } = gate else {
        return Ok(None);
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(Some(rustix::fs::open(path, flags, Mode::empty())?))
}

impl<'a> Closed<'a> {
    /// Takes hold of the gate, with the fifo that [`open`] gave the maker.
    pub(super) fn take(fifo: Option<OwnedFd>, socket: BorrowedFd<'a>) -> io::Result<Self> {
        Ok(match fifo {
            None => Self::Maker(socket),
            Some(fifo) => Self::Fifo {
                fifo,
                proc: private_proc()?,
            },
        })
    }

    /// Whether the maker may leave before it is opened.
    pub(super) fn outlives_maker(&self) -> bool {
        matches!(self, Self::Fifo { .. })
    }

    /// The descriptors it needs to stay open.
    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Maker(socket) => vec![*socket],
            Self::Fifo { fifo, proc } => vec![fifo.as_fd(), proc.as_fd()],
        }
    }

    /// Waits until it is opened.
    pub(super) fn wait(&self) -> io::Result<Opened<'a>> {
        match self {
            Self::Maker(socket) => {
                FromMaker::Start.expect(*socket)?;
                Ok(Opened::Maker(*socket))
            }
            Self::Fifo { fifo, proc } => {
                let name = format!("self/fd/{}", fifo.as_raw_fd());
                // Waits for a reader (fifo(7)).
                let open =
                    || rustix::fs::openat(proc, &name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
                Ok(Opened::Fifo(rustix::io::retry_on_intr(open)?))
            }
        }
    }
}

impl Opened<'_> {
    /// Tells whoever opened it that there will be no payload.
    pub(super) fn fail(&self, text: &str) {
        // Nobody is left to hear about a failure to report a failure.
        match self {
            Self::Maker(socket) => {
                let _ = ToMaker::Failed(text.to_owned()).send(*socket);
            }
            Self::Fifo(fifo) => {
                let _ = rustix::io::write(fifo, text.as_bytes());
            }
        }
    }
}
