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
//!                                         <------ SeccompListener
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

use crate::create::message::FromChild;
use crate::create::{Step, wait_readable};
use coracle_linux::pidfd::{Pid, Signal};
use coracle_linux::process::{self, Child, Clone};
use coracle_linux::{pidfd, socket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A process on its way to its payload. Poll its descriptor, then [`step`](Self::step).
#[derive(Debug)]
pub struct Executing {
    socket: OwnedFd,
    child: Option<Child>,
    console: Option<OwnedFd>,
    seccomp_listener: Option<OwnedFd>,
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
    /// The listener of its system call filter, if that notifies anybody.
    pub seccomp_listener: Option<OwnedFd>,
}

/// Makes the process and returns at once. The caller has one thread.
///
/// # Errors
/// Says what could not be done; there is no process then.
pub fn spawn(plan: ExecPlan) -> Result<Executing, ExecError> {
    let (ours, theirs) = socket::message_pair().map_err(ExecError::Channel)?;
    let cgroup = plan.cgroup.join()?;
    let namespaces = join::different(plan.pid, plan.pidfd.as_fd())?;
    let child = {
        let hidden = join::Hidden::from_ptrace()?;
        let visit = join::PidNamespaceVisit::enter(plan.pidfd.as_fd(), namespaces)?;
        let how = Clone {
            cgroup: cgroup.into.as_ref().map(AsFd::as_fd),
            ..Clone::default()
        };
        let made = process::clone(&how, || child::main(plan, namespaces, &cgroup, theirs.as_fd()));
        visit.leave()?;
        hidden.end()?;
        made.map_err(ExecError::Clone)?
    };
    Ok(Executing {
        socket: ours,
        child: Some(child),
        console: None,
        seccomp_listener: None,
    })
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
                Some(FromChild::SeccompListener(fd)) => self.seccomp_listener = Some(fd),
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
        let (console, seccomp_listener) = (self.console.take(), self.seccomp_listener.take());
        Ok(Process {
            pid,
            pidfd,
            console,
            seccomp_listener,
        })
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
