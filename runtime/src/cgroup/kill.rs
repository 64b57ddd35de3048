//! Ending every process of a cgroup.
//!
//! Where there is a cgroup2 directory, `cgroup.kill` (5.14) ends all of it in one step, forks included. What is left
//! after that, or everything on a pure v1 host: freeze, so that nothing can fork or exit (and no pid be reused)
//! between listing and killing; kill each; thaw, since a frozen process does not die.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::files::{children, is_gone, put, read};
use super::freezer::gone_is_none;
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

    /// Sends SIGKILL to everything in the cgroup and below; gives how many processes were left to kill when the pass
    /// began. 0 means that it is empty. It does not wait for them to be gone: call again until it gives 0.
    ///
    /// # Errors
    /// A list or the freezer cannot be used, or a process may not be killed.
    pub fn kill_all(&self) -> Result<usize, CgroupError> {
        let before = self.procs()?.len();
        if before == 0 {
            return Ok(0);
        }
        if let Some(dir) = self.unified_dir() {
            let file = dir.join("cgroup.kill");
            // Older kernels lack it; then the pass below does all the work.
            match put(&file, "1") {
                Err(source) if !is_gone(&source) => {
                    return Err(CgroupError::Write {
                        field: "kill",
                        file,
                        value: "1".into(),
                        source,
                    });
                }
                _ => {}
            }
        }
        self.freeze_and_kill()?;
        Ok(before)
    }

    /// [`Cgroup::kill_all`] again and again until nothing is left; false when that took longer than `patience`.
    ///
    /// # Errors
    /// As [`Cgroup::kill_all`].
    pub fn kill_until_empty(&self, patience: Duration) -> Result<bool, CgroupError> {
        let end = Instant::now() + patience;
        let mut pause = Duration::from_micros(100);
        while self.kill_all()? > 0 {
            if Instant::now() >= end {
                return Ok(false);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        Ok(true)
    }

    /// Kills what is there without a race: nothing moves while the list is worked on.
    fn freeze_and_kill(&self) -> Result<(), CgroupError> {
        let freezer = self.dir("freezer").is_some();
        if self.procs()?.is_empty() {
            // Killed, and not held by a freezer.
            return Ok(());
        }
        if freezer {
            self.freeze(FREEZE_PATIENCE)?;
        }
        let killed = self
            .procs()
            .and_then(|found| found.into_iter().try_for_each(|pid| self.kill(pid)));
        // Also when the killing failed: what stays frozen can never be ended by anybody.
        let thawed = if freezer { self.thaw() } else { Ok(()) };
        killed.and(thawed)
    }

    fn kill(&self, pid: Pid) -> Result<(), CgroupError> {
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => {
                let dir = self.process_dir().unwrap_or_default();
                Err(CgroupError::Kill {
                    pid: pid.as_raw_nonzero().get(),
                    dir,
                    source: errno.into(),
                })
            }
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
        self.dir("freezer")
            .or_else(|| self.dir("pids"))
            .or_else(|| self.unified_dir())
            .or_else(v1)
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
