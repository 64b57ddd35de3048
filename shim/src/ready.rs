//! Waiting for a descriptor in the executor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::task::Poll;

use coracle_runtime::exec::{ExecError, Executing, Process};
use coracle_runtime::hooks::HookError;
use coracle_runtime::{Container, CreateError, Creating, HookRun, StartError, Starting};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns when `fd` is readable. It is registered for this one wait, so that a level is never mistaken for an edge.
pub(crate) async fn readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    watch(fd)?.readable().await.map(drop)
}

/// Registers a descriptor for reading.
#[expect(
    deprecated,
    reason = "its unsafe successor asks for what OwnedFd and BorrowedFd promise by their types"
)]
pub(crate) fn watch<F: AsFd + AsRawFd>(fd: F) -> io::Result<AsyncFd<F>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Whether a read of `fd` would find something this very moment: data, or the end.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec::default();
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Something of the runtime that advances when its descriptor is readable.
pub(crate) trait Steps: AsFd {
    /// What is there in the end.
    type Done;
    /// Why it did not get there.
    type Error;
    /// As far as it goes without waiting.
    fn step(&mut self) -> Poll<Result<Self::Done, Self::Error>>;
    /// The executor could not wait for it.
    fn unwatchable(error: io::Error) -> Self::Error;
}

/// Steps until it is done.
pub(crate) async fn finish<S: Steps>(mut steps: S) -> Result<S::Done, S::Error> {
    loop {
        if let Poll::Ready(done) = steps.step()? {
            return Ok(done);
        }
        readable(steps.as_fd()).await.map_err(S::unwatchable)?;
    }
}

impl Steps for Creating {
    type Done = Container;
    type Error = CreateError;

    fn step(&mut self) -> Poll<Result<Container, CreateError>> {
        Creating::step(self)
    }

    fn unwatchable(error: io::Error) -> CreateError {
        CreateError::Channel(error)
    }
}

impl Steps for Starting {
    type Done = ();
    type Error = StartError;

    fn step(&mut self) -> Poll<Result<(), StartError>> {
        Starting::step(self)
    }

    fn unwatchable(error: io::Error) -> StartError {
        StartError::Channel(error)
    }
}

impl Steps for HookRun {
    type Done = ();
    type Error = HookError;

    fn step(&mut self) -> Poll<Result<(), HookError>> {
        HookRun::step(self)
    }

    fn unwatchable(source: io::Error) -> HookError {
        HookError::Wait {
            field: "hooks.poststop".into(),
            path: String::new(),
            source,
        }
    }
}

impl Steps for Executing {
    type Done = Process;
    type Error = ExecError;

    fn step(&mut self) -> Poll<Result<Process, ExecError>> {
        Executing::step(self)
    }

    fn unwatchable(error: io::Error) -> ExecError {
        ExecError::Channel(error)
    }
}
