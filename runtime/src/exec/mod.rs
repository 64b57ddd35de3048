//! An additional process in a running container.
//!
//! ```text
//!  caller (one thread)                            child
//!  spawn():
//!    visit the container's PID namespace
//!    clone3(into the cgroup) -------------------> v1: write 0 to each hierarchy's `tasks`
//!    back home                                    oom score, labels (through the host's /proc)
//!                                                 close what is the caller's
//!                                                 setns(pidfd: mount, net, ipc, uts, cgroup, user, time)
//!                                                 keyring, terminal, streams
//!  step():                                <------ Console (a terminal's other end)
//!                                                 identity, capabilities, seccomp
//!                                         <------ SeccompListener (only if the filter notifies an agent)
//!    ListenerTaken ----------------------------->
//!                                         <------ Failed, or the end of the stream: the payload runs
//! ```
//! The PID namespace is entered by the caller for the length of the clone, so that no process in between is needed. The
//! child is seen by the container from its first moment on: it is born not dumpable, so nothing without CAP_SYS_PTRACE
//! on the host can look into it before its execve (CVE-2016-9962).

mod child;
mod error;
mod join;
mod plan;

pub use error::ExecError;
pub use plan::{ExecPlan, ExecRequest, plan};

use crate::create::message::{FromChild, ToChild};
use crate::create::{Step, wait_readable};
use crate::seccomp::Listener;
use coracle_linux::pidfd::{Pid, Signal};
use coracle_linux::process::{self, Child, Clone};
use coracle_linux::{pidfd, socket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// A process on its way to its payload. Poll its descriptor, then [`step`](Self::step).
#[derive(Debug)]
pub struct Executing {
    socket: OwnedFd,
    child: Option<Child>,
    console: Option<OwnedFd>,
    listener: Option<Listener>,
    state: Vec<u8>,
    warnings: Vec<String>,
}

/// A process that runs its payload: a child of the caller, who collects it.
#[derive(Debug)]
pub struct Process {
    /// Its id, in the caller's PID namespace.
    pub pid: Pid,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
    /// The other end of its terminal, if it has one.
    pub console: Option<OwnedFd>,
    /// What could not be done as asked, for the log.
    pub warnings: Vec<String>,
}

/// Makes the process and returns at once. The caller has one thread.
///
/// # Errors
/// Says what could not be done; there is no process then.
pub fn spawn(mut plan: ExecPlan) -> Result<Executing, ExecError> {
    let (ours, theirs) = socket::message_pair().map_err(ExecError::Channel)?;
    let cgroup = plan.cgroup.join()?;
    let namespaces = join::different(plan.pid, plan.pidfd.as_fd())?;
    let listener = plan.seccomp.as_ref().and_then(|filter| filter.listener.clone());
    let state = std::mem::take(&mut plan.state);
    let hidden = join::Hidden::from_ptrace()?;
    let visit = join::PidNamespaceVisit::enter(plan.pidfd.as_fd(), namespaces)?;
    let how = Clone {
        cgroup: cgroup.into.as_ref().map(AsFd::as_fd),
        ..Clone::default()
    };
    let made = process::clone(&how, || child::main(plan, namespaces, &cgroup, theirs.as_fd()));
    let home = visit.leave();
    drop(hidden);
    let executing = Executing {
        socket: ours,
        child: Some(made.map_err(ExecError::Clone)?),
        console: None,
        listener,
        state,
        warnings: Vec::new(),
    };
    home.map(|()| executing)
}

impl Executing {
    /// Goes on as far as it can without waiting; done when the payload runs.
    ///
    /// # Errors
    /// [`ExecError::Child`]: the process could not get as far as its payload; it has been ended and collected.
    pub fn step(&mut self) -> Result<Step<Process>, ExecError> {
        loop {
            match FromChild::receive(self.socket.as_fd()).map_err(ExecError::Channel)? {
                None => return Ok(Step::Pending),
                Some(FromChild::Console(fd)) => self.console = Some(fd),
                Some(FromChild::SeccompListener(number)) => self.hand_over_listener(number)?,
                Some(FromChild::Warning(text)) => self.warnings.push(text),
                Some(FromChild::Failed(text)) => return Err(ExecError::Child(text)),
                Some(_) => return self.running().map(Step::Done),
            }
        }
    }

    /// Steps until it is done, waiting.
    ///
    /// # Errors
    /// As [`Executing::step`].
    pub fn finish(mut self) -> Result<Process, ExecError> {
        loop {
            if let Step::Done(process) = self.step()? {
                return Ok(process);
            }
            wait_readable(self.as_fd()).map_err(ExecError::Channel)?;
        }
    }

    fn running(&mut self) -> Result<Process, ExecError> {
        let Some(Child { pid, pidfd }) = self.child.take() else {
            return Err(ExecError::Finished);
        };
        Ok(Process {
            pid,
            pidfd,
            console: self.console.take(),
            warnings: std::mem::take(&mut self.warnings),
        })
    }

    fn hand_over_listener(&mut self, number: RawFd) -> Result<(), ExecError> {
        if let (Some(listener), Some(child)) = (&self.listener, &self.child) {
            listener.deliver(child, number, &self.state)?;
        }
        ToChild::ListenerTaken
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
        if let Some(child) = self.child.take() {
            let _ = pidfd::send_signal(child.pidfd.as_fd(), Signal::KILL);
            let _ = process::wait(child.pidfd.as_fd());
        }
    }
}
