//! A container that exists, and its start.

use super::StartError;
use crate::hooks::{HookError, HookRun};
use crate::id::ContainerId;
use crate::payload::{FromMaker, LastWords, ToMaker, wait_readable};
use crate::plan::HookPlan;
use crate::state::{Facts, Record, RecordError, Status};
use coracle_linux::cgroup::Cgroup;
use coracle_linux::pidfd::Pid;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::task::Poll;

/// A container whose first process waits for its start, or runs. Dropping this changes nothing about it.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub id: ContainerId,
    /// Its first process: a child of its maker, who collects it.
    pub pid: Pid,
    /// The first process by descriptor: readable once it has ended.
    pub pidfd: OwnedFd,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// The other end of its terminal, if it has one.
    pub console: Option<OwnedFd>,
    /// What could not be done as asked, as sentences for the log.
    pub warnings: Vec<String>,
    pub(super) facts: Facts,
    pub(super) gate: OpenedBy,
}

/// Who lets the first process go on.
#[derive(Debug)]
pub(super) enum OpenedBy {
    /// Its maker, over this socket.
    Maker(OwnedFd, LastWords),
    /// Somebody else, once the maker has said over this socket that there is a record.
    Fifo(OwnedFd),
    /// Whoever it was, it is done.
    Done,
}

impl Container {
    /// There is a record of it: a first process that waits for a fifo may outlive its maker from now on. Before, it dies
    /// with it, so that nothing goes on that nobody knows of.
    ///
    /// # Errors
    /// It has ended.
    pub fn recorded(&mut self) -> Result<(), StartError> {
        let OpenedBy::Fifo(socket) = &self.gate else {
            return Ok(());
        };
        let said = FromMaker::Recorded.send(socket.as_fd());
        self.gate = OpenedBy::Done;
        said.map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe => StartError::Ended,
            _ => StartError::Channel(source),
        })
    }

    /// Lets the first process execute its payload.
    ///
    /// # Errors
    /// It was started before, waits for a fifo, or has ended.
    pub fn start(&mut self) -> Result<Starting, StartError> {
        let OpenedBy::Maker(socket, words) = std::mem::replace(&mut self.gate, OpenedBy::Done) else {
            return Err(StartError::NotWaiting);
        };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|errno| StartError::Channel(errno.into()))?;
        epoll::add(&epoll, &socket, EventData::new_u64(0), EventFlags::IN)
            .map_err(|errno| StartError::Channel(errno.into()))?;
        FromMaker::Start
            .send(socket.as_fd())
            .map_err(|source| match source.kind() {
                io::ErrorKind::BrokenPipe => words.read().map_or(StartError::Ended, StartError::Exec),
                _ => StartError::Channel(source),
            })?;
        let poststart = self.facts.hooks.poststart.clone();
        let state = if poststart.is_empty() {
            Vec::new()
        } else {
            self.state(Status::Running)
        };
        Ok(Starting {
            socket: Some(socket),
            words,
            epoll,
            poststart,
            state,
            hooks: None,
        })
    }

    /// The hooks to run after the container has ended and its cgroup is gone; `None` when there are none.
    ///
    /// # Errors
    /// None can be started.
    pub fn poststop(&self) -> Result<Option<HookRun>, HookError> {
        let hooks = &self.facts.hooks.poststop;
        if hooks.is_empty() {
            return Ok(None);
        }
        HookRun::start_all(hooks.clone(), self.state(Status::Stopped)).map(Some)
    }

    /// What others need to know of it when its maker is gone.
    ///
    /// # Errors
    /// Its first process cannot be looked at.
    pub fn record(&self, rootfs: PathBuf, own_pid_namespace: bool) -> Result<Record, RecordError> {
        Record::of(&self.facts, self.pid, &self.cgroup, rootfs, own_pid_namespace)
    }

    /// Its state as the specification's JSON.
    #[must_use]
    pub fn state(&self, status: Status) -> Vec<u8> {
        self.facts.state(status, Some(self.pid))
    }
}

/// A container that is being started. Poll the descriptor, then [`step`](Self::step).
#[derive(Debug)]
pub struct Starting {
    /// Until its other end is closed by the execve.
    socket: Option<OwnedFd>,
    words: LastWords,
    epoll: OwnedFd,
    poststart: Vec<HookPlan>,
    state: Vec<u8>,
    hooks: Option<HookRun>,
}

impl Starting {
    /// Goes on as far as it can without waiting; done when the payload runs and the poststart hooks have run.
    ///
    /// # Errors
    /// [`StartError::Exec`]: the process has ended. [`StartError::Hook`]: it runs.
    pub fn step(&mut self) -> Poll<Result<(), StartError>> {
        if let Some(socket) = &self.socket {
            match ToMaker::receive(socket.as_fd()).map_err(StartError::Channel)? {
                None => return Poll::Pending,
                Some(ToMaker::Failed(text)) => return Poll::Ready(Err(StartError::Exec(text))),
                // Since it was ready, a failure is all that it may still say: the end comes from its execve.
                Some(
                    ToMaker::End
                    | ToMaker::Ready
                    | ToMaker::RunHooks
                    | ToMaker::Cloned(..)
                    | ToMaker::Console(_)
                    | ToMaker::SeccompListener(_)
                    | ToMaker::Warning(_),
                ) => self.socket = None,
            }
            if let Some(text) = self.words.read() {
                return Poll::Ready(Err(StartError::Exec(text)));
            }
            if !self.poststart.is_empty() {
                let hooks = HookRun::start(
                    std::mem::take(&mut self.poststart),
                    std::mem::take(&mut self.state),
                )?;
                epoll::add(&self.epoll, &hooks, EventData::new_u64(0), EventFlags::IN)
                    .map_err(|errno| StartError::Channel(errno.into()))?;
                self.hooks = Some(hooks);
            }
        }
        match &mut self.hooks {
            None => Poll::Ready(Ok(())),
            Some(hooks) => hooks.step().map_err(StartError::Hook),
        }
    }

    /// Steps until it is done, waiting.
    ///
    /// # Errors
    /// As [`Starting::step`].
    pub fn finish(mut self) -> Result<(), StartError> {
        while self.step()?.is_pending() {
            wait_readable(self.as_fd()).map_err(StartError::Channel)?;
        }
        Ok(())
    }
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
