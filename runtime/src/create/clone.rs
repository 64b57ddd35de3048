//! The clone of the first process into its cgroup, and its `Go`.

use super::first_process::{self, Inherited};
use super::namespaces::{self, Joined};
use super::{CreateError, Creating, gate};
use crate::payload::{Birth, FromMaker, give_streams_into};
use crate::plan::Plan;
use crate::rootfs::Prepared;
use coracle_linux::namespace::Namespaces;
use coracle_linux::pidfd;
use coracle_linux::process::{self, Clone};
use std::os::fd::{AsFd, OwnedFd};

/// What the first process is to be born with.
#[derive(Debug)]
pub(super) struct Unborn {
    pub(super) plan: Plan,
    pub(super) joined: Joined,
    pub(super) prepared: Prepared,
    pub(super) socket: OwnedFd,
}

impl Creating {
    pub(super) fn clone_first_process(&mut self, unborn: Unborn) -> Result<(), CreateError> {
        let Unborn {
            plan,
            joined,
            prepared,
            socket,
        } = unborn;
        let (Some(cgroup), Some(words)) = (&self.cgroup, &self.words) else {
            return Ok(());
        };
        let join = cgroup.join()?;
        if let Some(maps) = &self.id_maps {
            give_streams_into(&maps.uid, &plan.stdio, plan.process.uid);
        }
        let in_between = plan.namespaces.needs_process_between();
        let how = Clone {
            namespaces: if in_between {
                Namespaces::empty()
            } else {
                namespaces::in_clone(plan.namespaces.new)
            },
            cgroup: join.into.as_ref().map(AsFd::as_fd),
            sibling: false,
        };
        let fifo = gate::open(&plan.options.gate).map_err(CreateError::Fifo)?;
        let maker = pidfd::open(rustix::process::getpid()).map_err(CreateError::Clone)?;
        // A PID namespace is joined for children only: the maker goes in for the length of the clone.
        let pid_namespace = joined.pid_namespace().filter(|_| !in_between);
        let home = pid_namespace.map(namespaces::visit_pid_namespace).transpose()?;
        let made = process::clone(&how, || {
            let inherited = Inherited {
                plan,
                prepared,
                fifo,
                cgroup,
                join: &join,
                socket: socket.as_fd(),
                words,
                maker: maker.as_fd(),
            };
            match in_between {
                true => first_process::between(inherited, &joined),
                false => first_process::main(inherited, Some(&joined)),
            }
        });
        let left = home.map(namespaces::PidNamespaceVisit::leave).transpose();
        let made = made.map_err(CreateError::Clone)?;
        self.birth = match in_between {
            true => Birth::through(made),
            false => Birth::direct(made),
        };
        left.map(drop)
    }

    /// Lets the first process begin, once it is known and has its ids.
    pub(super) fn let_go(&mut self) -> Result<(), CreateError> {
        let Some(process) = self.birth.process().filter(|_| self.waits_for_go) else {
            return Ok(());
        };
        self.waits_for_go = false;
        if let Some(maps) = self.id_maps.take() {
            namespaces::map_ids(process.pid, &maps)?;
        }
        if let Some((streams, uid)) = self.streams.take() {
            // Read from outside, it has the ids of the maker's own namespace. Without the map they stay as they are.
            let path = format!("/proc/{}/uid_map", process.pid.as_raw_nonzero());
            give_streams_into(&std::fs::read_to_string(path).unwrap_or_default(), &streams, uid);
        }
        self.warnings.extend(self.outside.set_oom_score_adj(process.pid)?);
        self.send(FromMaker::Go)
    }
}
