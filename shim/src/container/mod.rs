//! One container of the pod, as the driver keeps it.

mod phase;
pub(crate) mod request;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::SystemTime;

use coracle_linux::cgroup::CgroupError;
use coracle_linux::pidfd;
use coracle_runtime::hooks::HookError;
use coracle_runtime::seccomp::Filter;
use coracle_runtime::{CreateError, StartError};
use coracle_shim_api::pod::{
    ContainerState, ContainerStatus, CreateContainerResponse, Empty, StartContainerResponse,
};

use crate::call::{Refused, Reply};
use crate::own_cgroup;
use crate::ready;
use crate::reaper::Claim;
use crate::report::{self, chain};
use crate::streams::log::{Log, LogError};
pub(crate) use phase::Phase;

/// What can fail about a container that was rightly asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error("create container")]
    Create(#[source] CreateError),
    #[error("start container")]
    Start(#[source] StartError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("kill: {0} is not a signal")]
    Signal(i32),
    #[error("kill the container's first process")]
    Kill(#[source] io::Error),
    #[error("the container's cgroup")]
    Cgroup(#[from] CgroupError),
    #[error("poststop hooks")]
    Poststop(#[source] HookError),
}

impl From<ContainerError> for Refused {
    fn from(error: ContainerError) -> Self {
        match error {
            ContainerError::Signal(_) => Self::invalid(error),
            ContainerError::Create(_)
            | ContainerError::Start(_)
            | ContainerError::Log(_)
            | ContainerError::Kill(_)
            | ContainerError::Cgroup(_)
            | ContainerError::Poststop(_) => Self::failed(error),
        }
    }
}

/// The exit code of what could not be executed, as in containerd.
const START_ERROR: i32 = 128;

/// A container and everything about it that outlives a phase.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) phase: Phase,
    pub(crate) pid: u32,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) log: Option<Log>,
    /// Its standard input, held open.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) created_at: Option<SystemTime>,
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) finished_at: Option<SystemTime>,
    pub(crate) oom_killed: bool,
    pub(crate) start_reply: Option<Reply<StartContainerResponse>>,
    /// Why its program was never executed.
    pub(crate) start_error: Option<String>,
    /// It has ended, which is told after its start has.
    pub(crate) settles_after_start: bool,
    pub(crate) waiting: Vec<Reply<ContainerState>>,
    pub(crate) deleting: Vec<Reply<Empty>>,
    /// Whoever asked for it, to be told why not once it is gone again.
    pub(crate) failed: Option<(Reply<CreateContainerResponse>, Refused)>,
}

/// What there is of a container from its creation to its removal.
pub(crate) struct Live {
    pub(crate) container: coracle_runtime::Container,
    /// Until its first process has been collected.
    pub(crate) claim: Option<Claim>,
    /// Commands that are run in it get the same filter.
    pub(crate) seccomp: Option<Filter>,
}

impl Container {
    /// A container that is being created.
    pub(crate) fn new(id: String, phase: Phase, log_path: Option<PathBuf>) -> Self {
        Self {
            id,
            phase,
            pid: 0,
            log_path,
            log: None,
            stdin: None,
            created_at: None,
            started_at: None,
            finished_at: None,
            oom_killed: false,
            start_reply: None,
            start_error: None,
            settles_after_start: false,
            waiting: Vec::new(),
            deleting: Vec::new(),
            failed: None,
        }
    }

    /// The word for its phase.
    pub(crate) fn status(&self) -> &'static str {
        self.phase.name()
    }

    /// What the protocol says about it; nothing before it exists.
    pub(crate) fn state(&self) -> Option<ContainerState> {
        let (status, exit) = match &self.phase {
            _ if self.failed.is_some() => return None,
            Phase::Creating { .. } | Phase::Changing => return None,
            Phase::Created(_) => (ContainerStatus::CONTAINER_STATUS_CREATED, None),
            // An ending container has not ended for anybody else: its output is not complete.
            Phase::Running(_) | Phase::Ending(..) => (ContainerStatus::CONTAINER_STATUS_RUNNING, None),
            Phase::Stopped(_, exit) | Phase::Removing(exit) => {
                (ContainerStatus::CONTAINER_STATUS_STOPPED, Some(exit))
            }
        };
        Some(ContainerState {
            id: self.id.clone(),
            status: status.into(),
            pid: self.pid,
            exit_code: match &self.start_error {
                Some(_) if exit.is_some() => START_ERROR,
                _ => exit.map_or(0, |exit| i32::from(exit.shell_code())),
            },
            start_error: self.start_error.clone().unwrap_or_default(),
            oom_killed: self.oom_killed,
            created_at: nanoseconds(self.created_at),
            started_at: nanoseconds(self.started_at),
            finished_at: exit.map_or(0, |_| nanoseconds(self.finished_at)),
            dropped_log_lines: self.log.as_ref().map_or(0, Log::dropped),
            ..Default::default()
        })
    }

    /// Whether nothing of it runs any more.
    pub(crate) fn has_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped(..) | Phase::Removing(_))
    }

    /// Kills it, or gives its creation up; its end follows by itself.
    pub(crate) fn end(&mut self) -> Result<(), ContainerError> {
        match &mut self.phase {
            Phase::Creating { go_on, .. } => {
                go_on.take();
                Ok(())
            }
            Phase::Created(live) | Phase::Running(live) => live.signal(libc::SIGKILL),
            Phase::Ending(..) | Phase::Stopped(..) | Phase::Removing(_) | Phase::Changing => Ok(()),
        }
    }
}

impl Live {
    /// Signals the first process; one that has ended already is fine.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), ContainerError> {
        match pidfd::send_signal_number(self.container.pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(ContainerError::Kill(error)),
            _ => Ok(()),
        }
    }

    /// Removes the cgroup and runs the poststop hooks. One that fails is for the log only (runtime specification,
    /// "Lifecycle", 13).
    pub(crate) async fn remove(&self) -> Result<(), ContainerError> {
        own_cgroup::remove(&self.container.cgroup).await?;
        if let Err(error) = self.run_poststop().await {
            report::log(&self.container.id, chain(&error));
        }
        Ok(())
    }

    async fn run_poststop(&self) -> Result<(), ContainerError> {
        match self.container.poststop().map_err(ContainerError::Poststop)? {
            Some(hooks) => ready::finish(hooks).await.map_err(ContainerError::Poststop),
            None => Ok(()),
        }
    }
}

/// Since the epoch; 0 for what has not happened.
pub(crate) fn nanoseconds(time: Option<SystemTime>) -> i64 {
    time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
}
