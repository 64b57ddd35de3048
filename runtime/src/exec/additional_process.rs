//! The additional process, from the clone to the execve, and the one before it that joins the container.
//!
//! What the container can see of it, in its PID namespace, is the second one alone. That has nothing of the host: no
//! descriptor, no directory, and of the capabilities only those of its payload and the few that it needs to become it.

use super::plan::ExecPlan;
use crate::identity::{self, IdentityPlan, Prepared};
use crate::payload::{self, Execute, FromMaker, LastWords, PayloadError, ToMaker, hand_over_listener, step};
use crate::plan::{ProcessPlan, Stdio};
use crate::rootfs::console;
use crate::seccomp::Filter;
use coracle_linux::cgroup::Join;
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::{prctl, process, signal};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

/// The process in between: its whole life. Returns its exit code.
pub(super) fn between(
    plan: ExecPlan,
    namespaces: Namespaces,
    cgroup: &Join,
    socket: BorrowedFd<'_>,
    words: &LastWords,
) -> u8 {
    let joined = || join(plan, namespaces, cgroup, socket);
    payload::live_between(socket, Namespaces::empty(), joined, |joined| {
        main(&joined, cgroup, socket, words)
    })
}

/// What is left to do inside: no descriptors among it.
struct Joined {
    process: ProcessPlan,
    env: Vec<CString>,
    identity: IdentityPlan,
    prepared: Prepared,
    seccomp: Option<Filter>,
    preserve_fds: u32,
}

/// Enters the container in everything that a clone hands down, and lets go of the host.
fn join(
    mut plan: ExecPlan,
    namespaces: Namespaces,
    cgroup: &Join,
    socket: BorrowedFd<'_>,
) -> Result<Joined, PayloadError> {
    signal::restore_defaults().map_err(step("unblocking signals"))?;
    enter_cgroup(&plan, cgroup)?;
    if let Some(warning) = identity::before_root(&plan.identity)? {
        ToMaker::Warning(warning)
            .send(socket)
            .map_err(step("reporting a warning"))?;
    }
    close_the_makers(&plan, cgroup, socket)?;
    if namespaces.contains(Namespaces::USER) {
        // While the host's procfs is in sight. Without the map they stay as they are.
        let path = format!("/proc/{}/uid_map", plan.pid.as_raw_nonzero());
        let map = std::fs::read_to_string(path).unwrap_or_default();
        payload::give_streams_into(&map, &plan.stdio, plan.uid);
    }
    enter_namespaces(&plan, namespaces)?;
    if !plan.no_new_keyring {
        payload::join_keyring(&plan.id)?;
    }
    take_streams(&mut plan, socket)?;
    let env = payload::with_home(&plan.process.env, plan.uid);
    payload::give_streams(plan.uid);
    let prepared = identity::prepare(&plan.identity, &plan.process.cwd)?;
    identity::give_away(&plan.identity, plan.seccomp.as_ref())?;
    // The clone inherits it, the execve ends it (CVE-2016-9962).
    prctl::set_dumpable(false).map_err(step("hiding from ptrace"))?;
    let ExecPlan {
        process,
        identity,
        seccomp,
        preserve_fds,
        ..
    } = plan;
    Ok(Joined {
        process,
        env,
        identity,
        prepared,
        seccomp,
        preserve_fds,
    })
}

/// The payload's process: its whole life. Returns, with the exit code, only when the payload could not be executed.
fn main(joined: &Joined, cgroup: &Join, socket: BorrowedFd<'_>, words: &LastWords) -> u8 {
    match execute(joined, cgroup, socket, words) {
        Ok(never) => match never {},
        Err(PayloadError::Said) => 255,
        Err(error) => {
            let _ = ToMaker::Failed(error.chain()).send(socket);
            255
        }
    }
}

fn execute(
    joined: &Joined,
    cgroup: &Join,
    socket: BorrowedFd<'_>,
    words: &LastWords,
) -> Result<Infallible, PayloadError> {
    let preserved = joined.preserve_fds;
    payload::begin_session()?;
    if joined.process.terminal.is_some() {
        payload::control_terminal()?;
    }
    cgroup.enter_pids()?;
    // Without a maker that knows of it, it must not go on.
    FromMaker::Go
        .expect(socket)
        .map_err(step("waiting for the maker"))?;
    let filter = joined.seccomp.as_ref();
    let confine = identity::assume(&joined.identity, &joined.prepared, filter)?;
    let program = payload::find_program(&joined.process.args[0], &joined.env)?;
    process::keep_on_exec(preserved).map_err(step("keeping the descriptors of preserve-fds"))?;
    process::close_all_but(&[socket], 3 + preserved).map_err(step("closing descriptors"))?;
    let execute = Execute::prepare(&program, &joined.process.args, &joined.env, words);
    let Some(filter) = filter else {
        return execute.run();
    };
    payload::confine(&confine, filter, words, |listener| {
        hand_over_listener(listener, socket)
    })?;
    execute.run_filtered()
}

/// On the processors of `execCPUAffinity`, or on all there are. What counts processes comes after the clone.
fn enter_cgroup(plan: &ExecPlan, cgroup: &Join) -> Result<(), PayloadError> {
    run_on(plan.affinity.initial.as_ref())?;
    cgroup.enter_others()?;
    if plan.affinity.initial.is_none() && plan.affinity.last.is_none() {
        payload::run_on_any_processor();
    }
    run_on(plan.affinity.last.as_ref())
}

/// Closes what is the maker's before the container could reach for it (CVE-2016-9962, CVE-2024-21626).
fn close_the_makers(plan: &ExecPlan, cgroup: &Join, socket: BorrowedFd<'_>) -> Result<(), PayloadError> {
    let mut keep = vec![socket, plan.pidfd.as_fd()];
    keep.extend(cgroup.pids_fd());
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

fn enter_namespaces(plan: &ExecPlan, namespaces: Namespaces) -> Result<(), PayloadError> {
    namespace::enter(plan.pidfd.as_fd(), namespaces).map_err(step("joining the container's namespaces"))?;
    if namespaces.contains(Namespaces::USER) {
        payload::become_root_of_user_namespace()?;
    }
    Ok(())
}

fn take_streams(plan: &mut ExecPlan, socket: BorrowedFd<'_>) -> Result<(), PayloadError> {
    let terminal = match plan.process.terminal {
        Some(size) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open("/", flags, Mode::empty());
            let root = root.map_err(step::<Errno>("opening the container's root"))?;
            Some(console::pair(root.as_fd(), size)?)
        }
        None => None,
    };
    let stdio = std::mem::replace(&mut plan.stdio, Stdio::Inherit);
    payload::take_streams(stdio, terminal, socket)
}

fn run_on(processors: Option<&CpuSet>) -> Result<(), PayloadError> {
    let Some(processors) = processors else {
        return Ok(());
    };
    sched_setaffinity(None, processors).map_err(step("process.execCPUAffinity"))
}
