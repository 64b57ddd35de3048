//! What can go wrong with an additional process.

use crate::identity::IdentityError;
use crate::payload::describe;
use crate::plan::PlanError;
use crate::seccomp::DeliverError;
use coracle_linux::cgroup::CgroupError;
use coracle_linux::process::Exit;
use std::io;

/// Why a process could not be started in a container.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// A field of the process.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A field of the process that is about its identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// `process.execCPUAffinity`.
    #[error("process.execCPUAffinity.{field}: {list:?} is not a list of processors")]
    Affinity {
        /// `initial` or `final`.
        field: &'static str,
        /// As given.
        list: String,
    },
    /// The agent of its filter.
    #[error(transparent)]
    Listener(#[from] DeliverError),
    /// The socket to the payload's process.
    #[error("the channel to the process")]
    Channel(#[source] io::Error),
    /// The container's first process has ended.
    #[error("the container is not running")]
    NotRunning,
    /// The container's namespaces cannot be looked at.
    #[error("namespaces of process {pid}")]
    Namespaces {
        /// The container's first process.
        pid: i32,
        /// The cause.
        source: io::Error,
    },
    /// clone3(2).
    #[error("making the process")]
    Clone(#[source] io::Error),
    /// The process says why it did not get as far as its payload.
    #[error("{0}")]
    Process(String),
    /// It ended without a word, or was given away already.
    #[error("the process ended before its payload ran{}", describe(*.0))]
    Died(Option<Exit>),
}
