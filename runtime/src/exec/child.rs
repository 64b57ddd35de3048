//! The additional process, from the clone to the execve.

use super::plan::ExecPlan;
use crate::cgroup::{CgroupError, Join};
use crate::create::chain;
use crate::create::message::{FromChild, hand_over_listener};
use crate::identity::{self, IdentityError};
use crate::payload::{self, LookupError};
use crate::plan::Stdio;
use crate::rootfs::{RootfsError, console};
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::{process, signal};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
enum ChildError {
    #[error("{doing}")]
    Step { doing: &'static str, source: io::Error },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("exec {program:?}")]
    Exec { program: String, source: io::Error },
}

fn step(doing: &'static str) -> impl Fn(io::Error) -> ChildError {
    move |source| ChildError::Step { doing, source }
}

/// What it returns is its exit code, and means that there is no payload.
pub(super) fn main(plan: ExecPlan, namespaces: Namespaces, cgroup: &Join, socket: BorrowedFd<'_>) -> u8 {
    match execute(plan, namespaces, cgroup, socket) {
        Ok(never) => match never {},
        Err(error) => {
            let _ = FromChild::Failed(chain(&error)).send(socket);
            255
        }
    }
}

fn execute(
    mut plan: ExecPlan,
    namespaces: Namespaces,
    cgroup: &Join,
    socket: BorrowedFd<'_>,
) -> Result<Infallible, ChildError> {
    signal::restore_defaults().map_err(step("unblocking signals"))?;
    be_on(plan.affinity.initial.as_ref())?;
    cgroup.enter()?;
    be_on(plan.affinity.last.as_ref())?;
    if let Some(warning) = identity::before_root(&plan.identity)? {
        FromChild::Warning(warning)
            .send(socket)
            .map_err(step("reporting a warning"))?;
    }
    close_the_callers(&plan, socket)?;
    let entered = namespaces.difference(Namespaces::PID);
    namespace::enter(plan.pidfd.as_fd(), entered).map_err(step("joining the container's namespaces"))?;
    if entered.contains(Namespaces::USER) {
        payload::become_root_of_user_namespace().map_err(step("becoming root of the user namespace"))?;
    }
    rustix::process::setsid().map_err(|errno| step("starting a session")(errno.into()))?;
    if !plan.no_new_keyring {
        payload::join_keyring(&plan.id).map_err(step("joining the session keyring"))?;
    }
    take_streams(&mut plan, socket)?;
    let env = payload::with_home(&plan.process.env, plan.uid);
    payload::give_streams(plan.uid);
    identity::apply(
        &plan.identity,
        plan.seccomp.as_ref(),
        &plan.process.cwd,
        &mut |listener| hand_over_listener(listener, socket),
    )?;
    let program = payload::find_program(&plan.process.args[0], &env)?;
    process::keep_on_exec(plan.preserve_fds).map_err(step("keeping the descriptors of preserve-fds"))?;
    process::close_all_but(&[socket], 3 + plan.preserve_fds).map_err(step("closing descriptors"))?;
    process::execve(&program, &plan.process.args, &env).map_err(|source| ChildError::Exec {
        program: program.to_string_lossy().into_owned(),
        source,
    })
}

/// Nothing of the caller's is open any more when the container could reach for it (CVE-2016-9962, CVE-2024-21626).
fn close_the_callers(plan: &ExecPlan, socket: BorrowedFd<'_>) -> Result<(), ChildError> {
    let mut keep = vec![socket, plan.pidfd.as_fd()];
    if let Stdio::Fds {
        stdin,
        stdout,
        stderr,
    } = &plan.stdio
    {
        keep.extend([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
    }
    process::close_all_but(&keep, 3 + plan.preserve_fds).map_err(step("closing descriptors"))
}

fn take_streams(plan: &mut ExecPlan, socket: BorrowedFd<'_>) -> Result<(), ChildError> {
    let failed = step("setting up the standard streams");
    if let Some(size) = plan.process.terminal {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let console::Terminal { master, slave } = console::pair(root.as_fd(), size)?;
        FromChild::Console(master)
            .send(socket)
            .map_err(step("sending the terminal"))?;
        rustix::process::ioctl_tiocsctty(&slave).map_err(|errno| failed(errno.into()))?;
        return payload::be_streams([&slave, &slave, &slave]).map_err(failed);
    }
    match std::mem::replace(&mut plan.stdio, Stdio::Inherit) {
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => payload::be_streams([&stdin, &stdout, &stderr]).map_err(failed),
        Stdio::Inherit | Stdio::Terminal => Ok(()),
    }
}

fn be_on(processors: Option<&CpuSet>) -> Result<(), ChildError> {
    let Some(processors) = processors else {
        return Ok(());
    };
    sched_setaffinity(None, processors).map_err(|errno| step("process.execCPUAffinity")(errno.into()))
}
