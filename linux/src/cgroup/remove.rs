//! Removing a cgroup from every hierarchy, deepest directories first.

use std::path::Path;
use std::time::{Duration, Instant};

use super::files::{children, is_gone};
use super::{Cgroup, CgroupError};

/// How long a cgroup that lists no process any more may take to be removable: a process that is not listed has ended, but
/// the kernel can count it a moment longer, and that moment is as long as the machine is busy.
const EMPTY_PATIENCE: Duration = Duration::from_secs(10);

/// How long processes that are listed may take to end. Nobody removes a cgroup before it has killed what is in it, so these
/// are on their way out, or somebody else's.
const LISTED_PATIENCE: Duration = Duration::from_millis(500);

/// Waits for a cgroup that is about to be free. Ask it after each attempt to remove that cgroup.
#[derive(Debug)]
pub struct RemovalWait {
    begun: Instant,
    pause: Duration,
}

impl Default for RemovalWait {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            pause: Duration::from_millis(1),
        }
    }
}

impl RemovalWait {
    /// How long to sleep before the next attempt to remove `cgroup`.
    ///
    /// # Errors
    /// It is held by processes that do not end (EBUSY), or its list cannot be read.
    pub fn next(&mut self, cgroup: &Cgroup) -> Result<Duration, CgroupError> {
        let patience = match cgroup.procs()?.is_empty() {
            true => EMPTY_PATIENCE,
            false => LISTED_PATIENCE,
        };
        if self.begun.elapsed() >= patience {
            return Err(cgroup.busy());
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(Duration::from_millis(20));
        Ok(pause)
    }
}

impl Cgroup {
    /// Removes the cgroup with all below it, and the levels above it that were made for it and are empty. Gone
    /// already is success. Waits for processes that are about to be gone.
    ///
    /// # Errors
    /// It still holds processes (EBUSY).
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut wait = RemovalWait::default();
        while !self.try_remove()? {
            std::thread::sleep(wait.next(self)?);
        }
        Ok(())
    }

    /// [`Cgroup::remove`] without any waiting: false when something in it is still busy.
    ///
    /// # Errors
    /// A directory cannot be removed for another reason than processes in it.
    pub fn try_remove(&self) -> Result<bool, CgroupError> {
        let mut all = true;
        for (_, dir) in self.paths() {
            all &= remove_tree(&dir)?;
        }
        if all {
            self.remove_made_parents();
        }
        Ok(all)
    }

    /// Removes it where nothing is in it and nothing below it; leaves it where that is not so.
    pub fn remove_if_empty(&self) {
        for (_, dir) in self.paths() {
            // EBUSY: in use; ENOENT: gone.
            drop(std::fs::remove_dir(dir));
        }
    }

    /// What to say about a directory that cannot be removed because of what is in it.
    fn busy(&self) -> CgroupError {
        let busy = self
            .paths()
            .into_iter()
            .map(|(_, dir)| dir)
            .find(|dir| dir.exists());
        CgroupError::Remove {
            dir: busy.unwrap_or_else(|| self.path.clone()),
            source: std::io::Error::from_raw_os_error(libc::EBUSY),
        }
    }

    /// Others may be using them, or have removed them: no result is an error.
    fn remove_made_parents(&self) {
        let mut depth = self.path.components().count() - 1;
        for level in self.path.ancestors().skip(1) {
            depth = depth.saturating_sub(1);
            let made = depth > self.kept;
            let shared = self.shared_parent.as_deref() == Some(level);
            if depth == 0 || !(made || shared) {
                continue;
            }
            for (_, dir) in (Self {
                path: level.to_owned(),
                ..self.clone()
            })
            .paths()
            {
                drop(std::fs::remove_dir(dir));
            }
        }
    }
}

fn remove_tree(dir: &Path) -> Result<bool, CgroupError> {
    match remove_one(dir)? {
        true => Ok(true),
        false => {
            let mut all = true;
            for child in children(dir) {
                all &= remove_tree(&child)?;
            }
            Ok(all && remove_one(dir)?)
        }
    }
}

fn remove_one(dir: &Path) -> Result<bool, CgroupError> {
    match std::fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => Ok(false),
        Err(source) => Err(CgroupError::Remove {
            dir: dir.to_owned(),
            source,
        }),
    }
}
