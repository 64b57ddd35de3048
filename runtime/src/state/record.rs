//! What the command line keeps of a container. What can be observed (whether it lives, runs, is frozen) is not in it.

use super::{Facts, Status, rfc3339};
use crate::hooks::{HookError, HookRun};
use crate::plan::Hooks;
use coracle_linux::cgroup::{Cgroup, CgroupError, FreezerState};
use coracle_linux::pidfd::{self, Pid};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A container on disk (`state.json`).
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Format of this file.
    pub version: u32,
    /// Its name.
    pub id: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// Of its specification.
    pub oci_version: String,
    /// Of its specification.
    pub annotations: HashMap<String, String>,
    /// Its first process.
    pub pid: i32,
    /// When that was started, in clock ticks since boot: with the id it names the process for good.
    pub start_time: u64,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Its hooks.
    pub(crate) hooks: Hooks,
    /// Its first process is the init of its own PID namespace: the end of that one ends all.
    pub own_pid_namespace: bool,
}

/// A process that cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The kernel refused.
    #[error("looking at process {pid}")]
    Observe {
        /// Its id.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// Its cgroup cannot be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl Record {
    /// The record of a container that was just created, with first process `pid`.
    pub(crate) fn of(
        facts: &Facts,
        pid: Pid,
        cgroup: &Cgroup,
        rootfs: PathBuf,
        own_pid_namespace: bool,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            version: VERSION,
            id: facts.id.clone(),
            bundle: facts.bundle.clone(),
            rootfs,
            oci_version: facts.oci_version.clone(),
            annotations: facts.annotations.clone(),
            pid: pid.as_raw_nonzero().get(),
            start_time: start_time(pid)?,
            created: rfc3339(SystemTime::now()),
            cgroup: cgroup.clone(),
            hooks: facts.hooks.clone(),
            own_pid_namespace,
        })
    }

    /// Runs the poststart hooks, waiting.
    ///
    /// # Errors
    /// The first that fails.
    pub fn run_poststart(&self) -> Result<(), HookError> {
        let hooks = &self.hooks.poststart;
        if hooks.is_empty() {
            return Ok(());
        }
        HookRun::start(hooks.clone(), self.state(Status::Running))?.finish()
    }

    /// Runs the poststop hooks, waiting.
    ///
    /// # Errors
    /// Those that fail; the others run all the same.
    pub fn run_poststop(&self) -> Result<(), HookError> {
        let hooks = &self.hooks.poststop;
        if hooks.is_empty() {
            return Ok(());
        }
        HookRun::start_all(hooks.clone(), self.state(Status::Stopped))?.finish()
    }

    /// Its first process, unless that has ended.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn process(&self) -> Result<Option<OwnedFd>, RecordError> {
        let failed = |source| RecordError::Observe {
            pid: self.pid,
            source,
        };
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let pidfd = match pidfd::open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // Looked at after the descriptor was taken: it is this process that the descriptor means, then.
        match observe(self.pid).map_err(failed)? {
            Some(seen) if seen.start_time == self.start_time && !seen.ended => Ok(Some(pidfd)),
            _ => Ok(None),
        }
    }

    /// Where it is in its life; `dir` is the directory of this record.
    ///
    /// # Errors
    /// Its first process or its cgroup cannot be looked at.
    pub fn status(&self, dir: &Path) -> Result<Status, RecordError> {
        if self.process()?.is_none() {
            return Ok(Status::Stopped);
        }
        if dir.join(EXEC_FIFO).exists() {
            return Ok(Status::Created);
        }
        let frozen = self.cgroup.freezer_state()? != FreezerState::Thawed;
        Ok(if frozen { Status::Paused } else { Status::Running })
    }

    /// Its state as the specification's JSON.
    #[must_use]
    pub fn state(&self, status: Status) -> Vec<u8> {
        self.facts().state(status, Pid::from_raw(self.pid))
    }

    fn facts(&self) -> Facts {
        Facts {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            oci_version: self.oci_version.clone(),
            annotations: self.annotations.clone(),
            hooks: self.hooks.clone(),
        }
    }
}

/// When a process was started, in clock ticks since boot.
fn start_time(pid: Pid) -> Result<u64, RecordError> {
    let pid = pid.as_raw_nonzero().get();
    let seen = observe(pid).map_err(|source| RecordError::Observe { pid, source })?;
    Ok(seen.map_or(0, |seen| seen.start_time))
}

struct Observed {
    start_time: u64,
    ended: bool,
}

/// State and start time from `/proc/PID/stat` (proc(5)), whose second field may hold anything, brackets too.
fn observe(pid: i32) -> io::Result<Option<Observed>> {
    let text = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let after_name = text
        .iter()
        .rposition(|byte| *byte == b')')
        .ok_or_else(malformed)?;
    let rest = String::from_utf8_lossy(&text[after_name + 1..]);
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The third field of the line is the first here, the start time its 22nd.
    let ended = matches!(fields.first(), Some(&("Z" | "X" | "x")));
    let start_time = fields
        .get(19)
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(malformed)?;
    Ok(Some(Observed { start_time, ended }))
}

/// The format this version writes.
pub(super) const VERSION: u32 = 1;

/// The gate's name in the directory of a record; it is there until the container is started.
pub(super) const EXEC_FIFO: &str = "exec.fifo";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = rustix::process::getpid();
        let first = start_time(own).unwrap();
        assert!(first > 0);
        assert_eq!(first, start_time(own).unwrap());
    }
}
