//! What can make a command fail.

use coracle_linux::cgroup::CgroupError;
use coracle_linux::seal::SealError;
use coracle_runtime::cgroup::SetupError;
use coracle_runtime::exec::ExecError;
use coracle_runtime::hooks::HookError;
use coracle_runtime::seccomp::SeccompError;
use coracle_runtime::spec::SpecError;
use coracle_runtime::state::{RecordError, Status, StoreError};
use coracle_runtime::{CreateError, IdError, PlanError, StartError};
use std::error::Error;
use std::io;
use std::path::PathBuf;

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("--systemd-cgroup is not supported yet: cgroups are managed in the file system")]
    SystemdCgroup,
    #[error("--root must not be /")]
    RootIsRoot,
    #[error("--no-pivot is not supported yet: the root is always changed with pivot_root")]
    NoPivot,
    #[error("opening the log {path}")]
    OpenLog { path: PathBuf, source: io::Error },
    #[error("making {path} absolute")]
    Path { path: PathBuf, source: io::Error },
    #[error("cannot allocate tty if coracle will detach without setting console socket")]
    TerminalWithoutSocket,
    #[error("cannot use console socket if coracle will not detach or allocate tty")]
    SocketWithoutTerminal,
    #[error("--preserve-fds {count}: descriptor {missing} is not open")]
    PreserveFds { count: u32, missing: u32 },
    #[error("handing a descriptor over at {path}")]
    HandOver { path: PathBuf, source: io::Error },
    #[error("writing the pid file {path}")]
    PidFile { path: PathBuf, source: io::Error },
    #[error("protecting the descriptors that were left open")]
    Descriptors(#[source] io::Error),
    #[error("{0} came before the container was started")]
    Interrupted(&'static str),
    #[error("NOTIFY_SOCKET: {path}")]
    NotifySocket { path: PathBuf, source: io::Error },
    #[error("{doing}")]
    Foreground { doing: &'static str, source: io::Error },
    #[error("container {id} is not created but {status}: it cannot be started")]
    NotCreated { id: String, status: Status },
    #[error("container not running")]
    NotRunning,
    #[error("unknown signal {0:?}")]
    Signal(String),
    #[error("signalling the container")]
    Kill(#[source] io::Error),
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped { id: String, status: Status },
    #[error("container {0} did not end within 10 s of SIGKILL")]
    Unkillable(String),
    #[error("starting the container through {path}")]
    Fifo { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Exec(String),
    #[error("the container ended before it was started")]
    EndedBeforeStart,
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    CgroupPlan(#[from] SetupError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("cannot exec in a paused container")]
    ExecPaused,
    #[error("cannot exec in a stopped container")]
    ExecStopped,
    #[error("no command is given, and no --process")]
    ExecNothing,
    #[error("{flag}: {value:?} is not a numeric id")]
    ExecId { flag: &'static str, value: String },
    #[error("--cap: unknown capability {0:?}")]
    ExecCapability(String),
    #[error(transparent)]
    ExecProcess(#[from] ExecError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error("writing {path}")]
    WriteSpec { path: PathBuf, source: io::Error },
    #[error("the built-in configuration")]
    Template(#[source] serde_json::Error),
    #[error("printing")]
    Print(#[source] io::Error),
}

/// An error and its causes, outermost first, as one line: the only form in which a user sees one.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_said_once_and_the_last_is_the_kernels() {
        let denied = io::Error::from_raw_os_error(13);
        let error = CliError::from(StoreError::File {
            doing: "reading",
            path: PathBuf::from("/run/coracle/c/state.json"),
            source: denied,
        });
        assert_eq!(
            chain(&error),
            "reading /run/coracle/c/state.json: Permission denied (os error 13)"
        );
        let error = CliError::from(CreateError::from(SetupError::Field {
            field: "linux.resources.cpu.shares",
            source: CgroupError::Write {
                file: PathBuf::from("/sys/fs/cgroup/cpu/c/cpu.shares"),
                value: "7".into(),
                source: io::Error::from_raw_os_error(22),
            },
        }));
        assert_eq!(
            chain(&error),
            "linux.resources.cpu.shares: write \"7\" to /sys/fs/cgroup/cpu/c/cpu.shares: \
             Invalid argument (os error 22)"
        );
    }
}
