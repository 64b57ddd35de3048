//! Ending every process of a cgroup.
//!
//! Where there is a cgroup2 directory, `cgroup.kill` (5.14) ends all of it in one step, forks included. What is left
//! after that, or everything on a pure v1 host: freeze, so that nothing forks meanwhile; kill each; thaw, since a frozen
//! process does not die.
//!
//! A number from a list may be another process's by the time it is used, since freezing takes time and a process of an
//! unfrozen hierarchy can exit. So each process is held by a descriptor (pidfd_open(2)), and signalled only if a list
//! that is read after that still names it: then the descriptor means a process of this cgroup, or one that has ended.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::pidfd::{self, Pid, Signal};

use super::files::{children, gone_is_none, is_gone, put, read};
use super::{Cgroup, CgroupError};

/// How long one pass waits for the freezer. What it misses, the next pass finds.
const FREEZE_PATIENCE: Duration = Duration::from_millis(2);

impl Cgroup {
    /// The processes in this cgroup and those below it, as seen from this process's PID namespace.
    ///
    /// # Errors
    /// A list cannot be read. A cgroup that is gone has none.
    pub fn procs(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut found = Vec::new();
        if let Some(dir) = self.process_dir() {
            collect(&dir, &mut found)?;
        }
        Ok(found)
    }

    /// The processes in any hierarchy of this cgroup and those below it, also one that has entered only some of them.
    ///
    /// # Errors
    /// As of [`Cgroup::procs`].
    pub fn procs_anywhere(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut found = Vec::new();
        for (_, dir) in self.paths() {
            collect(&dir, &mut found)?;
        }
        found.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        found.dedup();
        Ok(found)
    }

    /// Sends SIGKILL to everything in the cgroup and below; gives how many processes were left to kill when the pass
    /// began. 0 means that it is empty. It does not wait for them to be gone: call again until it gives 0.
    ///
    /// # Errors
    /// A list or the freezer cannot be used, or a process may not be killed.
    pub fn kill_all(&self) -> Result<usize, CgroupError> {
        self.kill_once(Self::procs)
    }

    fn kill_once(&self, list: List) -> Result<usize, CgroupError> {
        let before = list(self)?.len();
        if before == 0 {
            return Ok(0);
        }
        if let Some(dir) = self.unified_directory() {
            let file = dir.join("cgroup.kill");
            // Older kernels lack it; then the pass below does all the work.
            match put(&file, "1") {
                Err(source) if !is_gone(&source) => {
                    return Err(CgroupError::Write {
                        file,
                        value: "1".into(),
                        source,
                    });
                }
                _ => {}
            }
        }
        self.freeze_and_kill(list)?;
        Ok(before)
    }

    /// Kills again and again until nothing is left in any hierarchy; false when that took longer than `patience`.
    ///
    /// # Errors
    /// As [`Cgroup::kill_all`].
    pub fn kill_until_empty(&self, patience: Duration) -> Result<bool, CgroupError> {
        let end = Instant::now() + patience;
        let mut pause = Duration::from_micros(100);
        while self.kill_all()? > 0 || self.kill_once(Self::procs_anywhere)? > 0 {
            if Instant::now() >= end {
                return Ok(false);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        Ok(true)
    }

    /// Kills what is there without a race: nothing moves while the list is worked on.
    fn freeze_and_kill(&self, list: List) -> Result<(), CgroupError> {
        let freezer = self.v1_directory("freezer").is_some();
        if list(self)?.is_empty() {
            // Killed, and not held by a freezer.
            return Ok(());
        }
        if freezer {
            self.freeze(FREEZE_PATIENCE)?;
        }
        let killed = list(self).and_then(|found| self.kill_listed(&found, list));
        // Also when the killing failed: what stays frozen can never be ended by anybody.
        let thawed = if freezer { self.thaw_to_kill() } else { Ok(()) };
        killed.and(thawed)
    }

    /// Kills those of a list that are in the cgroup when it is their turn.
    pub(super) fn kill_listed(&self, listed: &[Pid], list: List) -> Result<(), CgroupError> {
        for some in listed.chunks(DESCRIPTORS) {
            let mut held = Vec::with_capacity(some.len());
            for pid in some {
                match pidfd::open(*pid) {
                    Ok(descriptor) => held.push((*pid, descriptor)),
                    Err(error) => has_ended(error).map_err(|source| self.not_killed(*pid, source))?,
                }
            }
            let still: HashSet<Pid> = list(self)?.into_iter().collect();
            for (pid, descriptor) in held.iter().filter(|(pid, _)| still.contains(pid)) {
                pidfd::send_signal(descriptor.as_fd(), Signal::KILL)
                    .or_else(has_ended)
                    .map_err(|source| self.not_killed(*pid, source))?;
            }
        }
        Ok(())
    }

    fn not_killed(&self, pid: Pid, source: io::Error) -> CgroupError {
        CgroupError::Kill {
            pid: pid.as_raw_nonzero().get(),
            dir: self.process_dir().unwrap_or_default(),
            source,
        }
    }

    /// The hierarchy whose lists count: the one that can stop what it lists, else any.
    fn process_dir(&self) -> Option<PathBuf> {
        let v1 = || {
            self.layout
                .v1
                .first()
                .map(|hierarchy| self.below(&hierarchy.mount_point))
        };
        self.v1_directory("freezer")
            .or_else(|| self.v1_directory("pids"))
            .or_else(|| self.unified_directory())
            .or_else(v1)
    }
}

/// Which hierarchies are looked at.
type List = fn(&Cgroup) -> Result<Vec<Pid>, CgroupError>;

/// Descriptors of processes held at a time.
const DESCRIPTORS: usize = 64;

fn has_ended(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(()),
        _ => Err(error),
    }
}

fn collect(dir: &Path, found: &mut Vec<Pid>) -> Result<(), CgroupError> {
    let Some(list) = gone_is_none(read(dir, "cgroup.procs"))? else {
        return Ok(());
    };
    // A process of another PID namespace shows as 0.
    found.extend(
        list.lines()
            .filter_map(|line| line.parse().ok())
            .filter_map(Pid::from_raw),
    );
    children(dir).iter().try_for_each(|child| collect(child, found))
}
