//! An additional process in a running container.
//!
//! ```text
//!  maker (one thread)            process in between               the payload's process
//!  spawn():
//!    clone3(into the cgroup) --> v1: write 0 to `tasks`
//!                                oom score, labels (host's /proc)
//!                                close what is the maker's
//!                                setns(pidfd: all namespaces)
//!  step():               <------ Console (a terminal's other end)
//!                                keyring, streams, directory
//!                                give capabilities away
//!                                clone3(CLONE_PARENT) ----------> session, terminal, v1: `tasks` of pids
//!    collect it          <------ Cloned, exits
//!    Go --------------------------------------------------------> identity, capabilities, seccomp
//!                        <--------------------------------------- SeccompListener (only if the filter notifies)
//!    ListenerTaken ---------------------------------------------> execve
//!                        <--------------------------------------- Failed, or the end of the stream: the payload runs
//! ```
//! The container sees the last of them from its first moment on, in its PID namespace. It is born not dumpable, so
//! nothing without CAP_SYS_PTRACE of the host's user namespace can look into it before its execve (CVE-2016-9962). For a
//! container that has that there is little to be found: no descriptor and no directory of the host, a program file that
//! is read only (`linux::seal`), and no capability but the payload's, CAP_SETUID and CAP_SETGID, and those that its
//! limits, its scheduler or a filter without no_new_privs need. So such a container can gain that little for itself, as
//! it can from every process it may trace.

mod additional_process;
mod error;
mod namespaces;
mod plan;

pub use error::ExecError;
pub use plan::{ExecPlan, ExecRequest, plan};

use crate::identity::Outside;
use crate::payload::{Birth, FromMaker, LastWords, ToMaker, wait_readable};
use crate::seccomp::Listener;
use coracle_linux::namespace::Namespaces;
use coracle_linux::pidfd::Pid;
use coracle_linux::process::{self, Child, Clone};
use coracle_linux::socket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::task::Poll;

/// A process on its way to its payload. Poll its descriptor, then [`step`](Self::step).
#[derive(Debug)]
pub struct Executing {
    socket: OwnedFd,
    birth: Birth,
    console: Option<OwnedFd>,
    listener: Option<Listener>,
    state: Vec<u8>,
    warnings: Vec<String>,
    words: LastWords,
    outside: Outside,
}

/// A process that runs its payload: a child of its maker, who collects it.
#[derive(Debug)]
pub struct Process {
    /// Its id, in its maker's PID namespace.
    pub pid: Pid,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
    /// The other end of its terminal, if it has one.
    pub console: Option<OwnedFd>,
    /// What could not be done as asked, for the log.
    pub warnings: Vec<String>,
}

/// Makes the process and returns at once. The calling process must have a single thread.
///
/// # Errors
/// Says what could not be done; there is no process then.
pub fn spawn(mut plan: ExecPlan) -> Result<Executing, ExecError> {
    let (ours, theirs) = socket::message_pair().map_err(ExecError::Channel)?;
    let cgroup = plan.cgroup.join()?;
    let namespaces = namespaces::different(plan.pid, plan.pidfd.as_fd())?;
    let listener = plan.seccomp.as_ref().and_then(|filter| filter.listener.clone());
    let state = std::mem::take(&mut plan.state);
    let outside = match namespaces.contains(Namespaces::USER) {
        true => plan.identity.take_outside(),
        false => Outside::default(),
    };
    let how = Clone {
        cgroup: cgroup.into.as_ref().map(AsFd::as_fd),
        ..Clone::default()
    };
    let words = LastWords::anonymous().map_err(ExecError::Channel)?;
    let between = process::clone(&how, || {
        additional_process::between(plan, namespaces, &cgroup, theirs.as_fd(), &words)
    });
    Ok(Executing {
        socket: ours,
        birth: Birth::through(between.map_err(ExecError::Clone)?),
        console: None,
        listener,
        state,
        warnings: Vec::new(),
        words,
        outside,
    })
}

impl Executing {
    /// Goes on as far as it can without waiting; done when the payload runs.
    ///
    /// # Errors
    /// [`ExecError::Process`]: the process could not get as far as its payload; it has been ended and collected.
    pub fn step(&mut self) -> Poll<Result<Process, ExecError>> {
        loop {
            match ToMaker::receive(self.socket.as_fd()).map_err(ExecError::Channel)? {
                None => return Poll::Pending,
                Some(ToMaker::Cloned(pid, pidfd)) => {
                    self.birth.cloned(Child { pid, pidfd });
                    self.warnings.extend(self.outside.set_oom_score_adj(pid)?);
                    self.outside.set_limits(pid)?;
                    // If it is gone already, it has said why.
                    let _ = FromMaker::Go.send(self.socket.as_fd());
                }
                Some(ToMaker::Console(fd)) => self.console = Some(fd),
                Some(ToMaker::SeccompListener(number)) => self.hand_over_listener(number)?,
                Some(ToMaker::Warning(text)) => self.warnings.push(text),
                Some(ToMaker::Failed(text)) => return Poll::Ready(Err(ExecError::Process(text))),
                // The end comes from its execve; only a first process says the other two.
                Some(ToMaker::End | ToMaker::RunHooks | ToMaker::Ready) => {
                    return Poll::Ready(self.running());
                }
            }
        }
    }

    /// Steps until it is done, waiting.
    ///
    /// # Errors
    /// As [`Executing::step`].
    pub fn finish(mut self) -> Result<Process, ExecError> {
        loop {
            if let Poll::Ready(process) = self.step()? {
                return Ok(process);
            }
            wait_readable(self.as_fd()).map_err(ExecError::Channel)?;
        }
    }

    fn running(&mut self) -> Result<Process, ExecError> {
        if let Some(text) = self.words.read() {
            return Err(ExecError::Process(text));
        }
        let Some(Child { pid, pidfd }) = self.birth.take() else {
            return Err(ExecError::Died(self.birth.exit()));
        };
        Ok(Process {
            pid,
            pidfd,
            console: self.console.take(),
            warnings: std::mem::take(&mut self.warnings),
        })
    }

    fn hand_over_listener(&mut self, number: RawFd) -> Result<(), ExecError> {
        if let (Some(listener), Some(process)) = (&self.listener, self.birth.process()) {
            listener.deliver(process, number, &self.state)?;
        }
        FromMaker::ListenerTaken
            .send(self.socket.as_fd())
            .map_err(ExecError::Channel)
    }
}

impl AsFd for Executing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Executing {
    /// Unfinished, it is ended: nobody knows of it.
    fn drop(&mut self) {
        self.birth.end(self.socket.as_fd());
    }
}
