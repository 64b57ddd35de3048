//! What the first process of a container and an additional one do alike between their clone and their execve.

mod birth;
mod environment;
mod error;
mod execute;
mod last_words;
mod message;
mod program;
mod streams;

pub(crate) use birth::{Birth, describe, live_between};
pub(crate) use environment::with_home;
pub(crate) use error::{PayloadError, step};
pub(crate) use execute::{Execute, confine};
pub(crate) use last_words::LastWords;
pub(crate) use last_words::read_last_words;
pub(crate) use message::{FromMaker, ToMaker, hand_over_listener, wait_readable};
pub(crate) use program::{LookupError, find_program};
pub(crate) use streams::{control_terminal, give_streams, give_streams_into, take_streams};

use coracle_linux::keyring;
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{self, CpuSet};
use std::ffi::CString;

/// In a user namespace that it has just entered, a process is nobody until it becomes root there.
pub(crate) fn become_root_of_user_namespace() -> Result<(), PayloadError> {
    let failed = step("becoming root of the user namespace");
    match thread::set_thread_groups(&[]) {
        // Where setgroups is denied there is nothing to give up either.
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let (gid, uid) = (Gid::ROOT, Uid::ROOT);
    thread::set_thread_res_gid(gid, gid, gid)
        .and_then(|()| thread::set_thread_res_uid(uid, uid, uid))
        .map_err(failed)
}

/// Leaves the maker's session: its terminal and its signals.
pub(crate) fn begin_session() -> Result<(), PayloadError> {
    rustix::process::setsid()
        .map(drop)
        .map_err(step("starting a session"))
}

/// Enters the session keyring of container `id`, made when there is none, so that the process does not see the keys
/// of whoever started it.
pub(crate) fn join_keyring(id: &str) -> Result<(), PayloadError> {
    let joined = CString::new(format!("_ses.{id}"))
        .map_err(std::io::Error::from)
        .and_then(|name| keyring::join_session(&name));
    match joined {
        // A kernel without keys has none to see.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        done => done.map_err(step("joining the container's session keyring")),
    }
}

/// Lets go of the processors that the maker was confined to (a service's CPUAffinity=, taskset): the kernel cuts this down
/// to the cpuset of the cgroup, which has been joined by now.
pub(crate) fn run_on_any_processor() {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    // Nothing that a payload could not do itself; where it is forbidden, it stays as it is.
    let _ = thread::sched_setaffinity(None, &all);
}
