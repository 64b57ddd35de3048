//! What can go wrong while a container is created and started.

use crate::cgroup::SetupError;
use crate::hooks::HookError;
use crate::identity::IdentityError;
use crate::payload::describe;
use crate::rootfs::RootfsError;
use crate::seccomp::DeliverError;
use coracle_linux::cgroup::CgroupError;
use coracle_linux::process::Exit;
use std::io;
use std::path::PathBuf;

/// A container that could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A namespace to join cannot be opened.
    #[error("opening the {kind} namespace {path}")]
    OpenNamespace {
        /// Its kind.
        kind: &'static str,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is a namespace of another kind, or none.
    #[error("{path} is not a {kind} namespace")]
    NotNamespace {
        /// The kind wanted.
        kind: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A kernel parameter of the network would change the maker's own network namespace.
    #[error("linux.sysctl[{0:?}]: the network namespace to join is the host's")]
    SysctlOfHost(String),
    /// A joined PID namespace could not be entered or left.
    #[error("{doing} the PID namespace to join")]
    VisitPidNamespace {
        /// Entering or leaving.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] SetupError),
    /// A field about its identity that is the maker's to honour.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its cgroup cannot be entered.
    #[error(transparent)]
    Join(#[from] CgroupError),
    /// The agent of its system call filter.
    #[error(transparent)]
    Listener(#[from] DeliverError),
    /// What the container's user may not reach had to be opened for it.
    #[error(transparent)]
    Prepare(RootfsError),
    /// The socket to the first process.
    #[error("talking to the container's first process")]
    Channel(#[source] io::Error),
    /// The exec fifo.
    #[error("opening the exec fifo")]
    Fifo(#[source] io::Error),
    /// The page for the first process's last words.
    #[error("making a place for the first process's last words")]
    LastWords(#[source] io::Error),
    /// The mark that the cgroup is this container's.
    #[error("making {path}")]
    Mark {
        /// The link.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The first process cannot be made.
    #[error("making the container's first process")]
    Clone(#[source] io::Error),
    /// The ids of its user namespace cannot be mapped.
    #[error("writing {path}")]
    MapIds {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program that maps ids for users without privileges.
    #[error("linux.uidMappings: to map other ids than the own one takes {program} (Debian: package uidmap)")]
    NoIdMapper {
        /// newuidmap or newgidmap.
        program: &'static str,
        /// Why it cannot be run.
        source: io::Error,
    },
    /// It refused.
    #[error("linux.uidMappings: {program}: {said}")]
    IdMapper {
        /// newuidmap or newgidmap.
        program: &'static str,
        /// Its words.
        said: String,
    },
    /// A hook.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The first process has failed; the text is its chain of causes.
    #[error("{0}")]
    FirstProcess(String),
    /// The first process was killed by the kernel before it was ready.
    #[error(
        "the container's first process was killed for want of memory before it was ready: is linux.resources.memory.limit too low?"
    )]
    OutOfMemory,
    /// The first process ended without a word.
    #[error("the container's first process ended before it was ready{}", describe(*.0))]
    FirstProcessDied(Option<Exit>),
    /// The same, with a filter that may have denied it to say why.
    #[error(
        "the container's first process ended before it was ready{}: does linux.seccomp deny what it needs to start a program?",
        describe(*.0)
    )]
    FirstProcessFiltered(Option<Exit>),
}

/// A container that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was started before, or waits for a fifo.
    #[error("the container does not wait to be started")]
    NotWaiting,
    /// It was killed while it waited.
    #[error("the container's first process ended before it was started")]
    Ended,
    /// The socket to the first process.
    #[error("talking to the container's first process")]
    Channel(#[source] io::Error),
    /// The payload cannot be executed; the text is the chain of causes. The process has ended.
    #[error("{0}")]
    Exec(String),
    /// A poststart hook. The payload runs.
    #[error(transparent)]
    Hook(#[from] HookError),
}
