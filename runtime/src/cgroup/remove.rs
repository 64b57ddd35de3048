//! Removing a cgroup from every hierarchy, deepest directories first.

use std::path::Path;
use std::time::Duration;

use super::create::in_default_parent;
use super::files::{children, is_gone};
use super::plan::DEFAULT_PARENT;
use super::{Cgroup, CgroupError};

/// A killed process leaves its cgroup a moment after it is seen to have ended; in all some 40 ms.
const PAUSES_MS: [u64; 6] = [1, 1, 2, 5, 10, 20];

impl Cgroup {
    /// Removes the cgroup with all below it, and the levels above it that were made for it and are empty. Gone
    /// already is success. Waits a few milliseconds for processes that are about to be gone.
    ///
    /// # Errors
    /// It still holds processes (EBUSY).
    pub fn remove(&self) -> Result<(), CgroupError> {
        for pause in PAUSES_MS {
            if self.try_remove()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
        if self.try_remove()? {
            return Ok(());
        }
        let busy = self
            .paths()
            .into_iter()
            .map(|(_, dir)| dir)
            .find(|dir| dir.exists());
        let dir = busy.unwrap_or_else(|| self.path.clone());
        Err(CgroupError::Remove {
            dir,
            source: std::io::Error::from_raw_os_error(libc::EBUSY),
        })
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

    /// Others may be using them, or have removed them: no result is an error.
    fn remove_made_parents(&self) {
        let mut depth = self.path.components().count() - 1;
        for level in self.path.ancestors().skip(1) {
            depth = depth.saturating_sub(1);
            let made = depth > self.kept;
            let shared = level == Path::new(DEFAULT_PARENT) && in_default_parent(&self.path);
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
