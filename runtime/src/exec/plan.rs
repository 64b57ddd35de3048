//! From a request to a checked plan. Pure.

use super::ExecError;
use crate::identity::{self, IdentityPlan};
use crate::plan::{ProcessPlan, Stdio};
use crate::seccomp::Filter;
use coracle_linux::cgroup::Cgroup;
use coracle_linux::pidfd::Pid;
use oci_spec::runtime::Process;
use rustix::thread::CpuSet;
use std::os::fd::OwnedFd;

/// An additional process for a container.
#[derive(Debug)]
pub struct ExecRequest {
    /// The container's name, for its session keyring.
    pub id: String,
    /// The container's first process.
    pub pid: Pid,
    /// The same process by descriptor.
    pub pidfd: OwnedFd,
    /// The cgroup to start in: the container's, or one below.
    pub cgroup: Cgroup,
    /// What to run, and the identity to run it with.
    pub process: Process,
    /// The container's compiled filter (`seccomp::compile` of `linux.seccomp`).
    pub seccomp: Option<Filter>,
    /// The container's state as JSON, for the agent of a filter that notifies one.
    pub state: Vec<u8>,
    /// Its standard streams.
    pub stdio: Stdio,
    /// How many descriptors, from 3 on, it gets besides the standard streams.
    pub preserve_fds: u32,
    /// Do not enter the container's session keyring.
    pub no_new_keyring: bool,
}

/// The checked form of a request.
#[derive(Debug)]
pub struct ExecPlan {
    pub(super) id: String,
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) cgroup: Cgroup,
    pub(super) process: ProcessPlan,
    pub(super) uid: u32,
    pub(super) identity: IdentityPlan,
    pub(super) affinity: Affinity,
    pub(super) seccomp: Option<Filter>,
    pub(super) state: Vec<u8>,
    pub(super) stdio: Stdio,
    pub(super) preserve_fds: u32,
    pub(super) no_new_keyring: bool,
}

/// The processors to run on before and after the cgroup is joined.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    pub(super) initial: Option<CpuSet>,
    pub(super) last: Option<CpuSet>,
}

/// Checks a request.
///
/// # Errors
/// Names the field of `process`.
pub fn plan(request: ExecRequest) -> Result<ExecPlan, ExecError> {
    let ExecRequest {
        id,
        pid,
        pidfd,
        cgroup,
        process,
        seccomp,
        state,
        stdio,
        preserve_fds,
        no_new_keyring,
    } = request;
    let affinity = process.exec_cpu_affinity().as_ref();
    let affinity = Affinity {
        initial: cpu_set(
            "initial",
            affinity.and_then(|affinity| affinity.initial().as_deref()),
        )?,
        last: cpu_set(
            "final",
            affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref()),
        )?,
    };
    Ok(ExecPlan {
        uid: process.user().uid(),
        identity: identity::plan(&process)?,
        process: ProcessPlan::of(&process, &stdio)?,
        id,
        pid,
        pidfd,
        cgroup,
        affinity,
        seccomp,
        state,
        stdio,
        preserve_fds,
        no_new_keyring,
    })
}

fn cpu_set(field: &'static str, list: Option<&str>) -> Result<Option<CpuSet>, ExecError> {
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return Ok(None);
    };
    let refused = || ExecError::Affinity {
        field,
        list: list.to_owned(),
    };
    let mut set = CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|cpu| *cpu < CpuSet::MAX_CPU)
                .ok_or_else(refused)
        };
        let (first, last): (usize, usize) = (number(first)?, number(last)?);
        if first > last {
            return Err(refused());
        }
        (first..=last).for_each(|cpu| set.set(cpu));
    }
    Ok(Some(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_lists_are_read() {
        let set = cpu_set("initial", Some("0,2-3")).unwrap().unwrap();
        assert_eq!(
            [0, 1, 2, 3, 4].map(|cpu| set.is_set(cpu)),
            [true, false, true, true, false]
        );
        assert!(cpu_set("initial", Some("")).unwrap().is_none());
        for bad in ["x", "3-1", "0-", "99999"] {
            assert!(
                cpu_set("final", Some(bad))
                    .unwrap_err()
                    .to_string()
                    .contains("execCPUAffinity.final"),
                "{bad}"
            );
        }
    }
}
