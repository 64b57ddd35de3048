//! The pod's init: PID 1 of a PID namespace that all containers of the pod share (CRI: pid mode POD).
//!
//! ```text
//!  shim --clone3(NEWPID|NEWNS)--> child: joins its cgroup, empty read-only root, no descriptors
//!                                   |---fexecve(own sealed image)---> run(): not dumpable, no capabilities
//!  shim <--------- one byte --------------------------------------------'  then it only reaps
//! ```
//! Containers see it as /proc/1. A reaper that is dumpable gives a container with Docker's default capabilities the files
//! of the host through /proc/1/root, so: a root with nothing in it, and PR_SET_DUMPABLE 0, which must come after the exec
//! because execve(2) sets it back. StartPod waits for the byte, so no container ever runs beside a dumpable init.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use coracle_linux::cgroup::CgroupError;
use coracle_linux::mount::{Attr, FsContext};
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::process::{self, Clone};
use coracle_linux::{pidfd, prctl, socket};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::bare_root;
use crate::own_cgroup::OwnCgroup;
use crate::ready;
use crate::report;

/// The running init of a pod.
pub(crate) struct Init {
    pub(crate) pid: Pid,
    pidfd: OwnedFd,
    /// Where it says that it is ready.
    channel: Option<OwnedFd>,
}

/// Why there is no init.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error("open the shim's own program for the pod's init")]
    OpenProgram(#[source] io::Error),
    #[error("start the pod's init")]
    Clone(#[source] io::Error),
    #[error("wait for the pod's init")]
    Wait(#[source] io::Error),
    /// Its own words went to the shim's standard error.
    #[error("the pod's init ended before it was ready")]
    Ended,
    #[error("open the pod's PID namespace")]
    OpenNamespace(#[source] io::Error),
    #[error("end the pod's init")]
    Kill(#[source] io::Error),
}

impl Init {
    /// Starts an init in `cgroup` and returns at once; nothing may see it before it is [ready](Self::ready).
    pub(crate) fn spawn(cgroup: &OwnCgroup) -> Result<Self, InitError> {
        let program = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| InitError::OpenProgram(errno.into()))?;
        let (here, there) = socket::message_pair().map_err(InitError::Clone)?;
        let namespaces = Namespaces::PID | Namespaces::MNT;
        let how = Clone {
            namespaces,
            cgroup: cgroup.directory(),
            ..Clone::default()
        };
        let child =
            process::clone(&how, || become_init(cgroup, &program, &there)).map_err(InitError::Clone)?;
        Ok(Self {
            pid: child.pid,
            pidfd: child.pidfd,
            channel: Some(here),
        })
    }

    /// Waits until it is safe to let containers see it.
    pub(crate) async fn ready(&mut self) -> Result<(), InitError> {
        let Some(channel) = self.channel.take() else {
            return Ok(());
        };
        ready::readable(channel.as_fd()).await.map_err(InitError::Wait)?;
        let mut byte = [0];
        let received = socket::receive(channel.as_fd(), &mut byte, false).map_err(InitError::Wait)?;
        if received.length == 1 {
            Ok(())
        } else {
            Err(InitError::Ended)
        }
    }

    /// The namespace that containers join.
    pub(crate) fn namespace(&self) -> Result<OwnedFd, InitError> {
        let path = format!("/proc/{}/ns/pid", self.pid.as_raw_nonzero());
        namespace::open(path.as_ref()).map_err(InitError::OpenNamespace)
    }

    /// Kills it, and with it every process of its PID namespace, and returns when all are gone (pid_namespaces(7)).
    pub(crate) async fn kill(self) -> Result<(), InitError> {
        // ESRCH: it has been killed by somebody else.
        let _ = pidfd::send_signal(self.pidfd.as_fd(), pidfd::Signal::KILL);
        ready::readable(self.pidfd.as_fd())
            .await
            .map_err(InitError::Kill)?;
        process::try_wait(self.pidfd.as_fd()).map_err(InitError::Kill)?;
        Ok(())
    }
}

/// Whether this process was started as an init.
pub(crate) fn is_wanted() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// The init's program.
pub(crate) fn run() -> ExitCode {
    let Err(error) = protect().and_then(|()| say_ready_and_reap().map_err(InitProgramError::Reap));
    say(&error);
    ExitCode::FAILURE
}

/// Why a child is no init. Nobody but the shim's log hears of it.
#[derive(Debug, thiserror::Error)]
enum InitProgramError {
    #[error("enter its cgroup")]
    Cgroup(#[source] CgroupError),
    #[error("leave the host's mounts")]
    Root(#[source] io::Error),
    #[error("execute the shim's own program")]
    Execute(#[source] io::Error),
    #[error("give up its capabilities")]
    Protect(#[source] io::Error),
    #[error("wait for children")]
    Reap(#[source] io::Error),
}

fn say(error: &InitProgramError) {
    eprintln!("coracle-shim: pod init: {}", report::chain(error));
}

/// In the clone, before the exec.
fn become_init(cgroup: &OwnCgroup, program: &OwnedFd, ready: &OwnedFd) -> u8 {
    let entered = cgroup.enter().map_err(InitProgramError::Cgroup);
    let left = entered.and_then(|()| leave_mounts().map_err(InitProgramError::Root));
    let Err(error) = left.and_then(|()| execute(program, ready).map_err(InitProgramError::Execute));
    say(&error);
    1
}

fn leave_mounts() -> io::Result<()> {
    let root = FsContext::open("tmpfs")?;
    root.set("nr_inodes", "1")?;
    bare_root::enter(root.mount(Attr::RDONLY | Attr::NOSUID | Attr::NODEV | Attr::NOEXEC)?)
}

/// The channel becomes standard input, so that nothing else is open behind the exec. Errors still have the shim's standard
/// error.
fn execute(program: &OwnedFd, ready: &OwnedFd) -> io::Result<Infallible> {
    rustix::stdio::dup2_stdin(ready)?;
    rustix::stdio::dup2_stdout(ready)?;
    process::close_on_exec_from(3)?;
    process::fexecve(program.as_fd(), &[CString::from(NAME_C)], &[])
}

fn protect() -> Result<(), InitProgramError> {
    drop_capabilities().map_err(InitProgramError::Protect)?;
    prctl::set_no_new_privs().map_err(InitProgramError::Protect)?;
    // Last: a change of credentials can set it again (prctl(2)).
    prctl::set_dumpable(false).map_err(InitProgramError::Protect)
}

fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for capability in CapabilitySet::all().iter() {
        // EINVAL: one that this kernel does not know yet.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}

fn say_ready_and_reap() -> io::Result<Infallible> {
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    ended.thread_block()?;
    rustix::io::write(rustix::stdio::stdin(), &[1])?;
    // The last descriptors: the channel, and the shim's log, which is a file of the host.
    process::close_all_but(&[], 0)?;
    loop {
        while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        ended.wait()?;
    }
}

const NAME: &str = "coracle-pod-init";
const NAME_C: &std::ffi::CStr = c"coracle-pod-init";
