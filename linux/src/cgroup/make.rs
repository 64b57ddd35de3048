//! Making a cgroup's directories. What was made is removed again unless it is kept.

use std::io;
use std::path::{Path, PathBuf};

use super::{Cgroup, CgroupError, Layout};

/// A cgroup whose directories are there; those that were made for it go again when this is dropped.
#[derive(Debug)]
pub struct Made {
    cgroup: Cgroup,
    made: Vec<PathBuf>,
    existed: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the directory of this path, and what is missing above it, in every hierarchy. A hierarchy that refuses a
    /// user without privileges (as cgroups(7) lets it, unless a part is delegated) is left out of its layout.
    ///
    /// # Errors
    /// The path is not valid, or a directory cannot be made. Nothing is left behind then.
    pub fn make(layout: &Layout, path: &Path) -> Result<Made, CgroupError> {
        let mut made = Made {
            cgroup: Self::at(layout, path)?,
            made: Vec::new(),
            existed: Vec::new(),
        };
        made.cgroup.kept = 0;
        for mount_point in layout.mount_points() {
            let dir = made.cgroup.below(&mount_point);
            let kept = match made.directory(&mount_point, &dir) {
                Err(CgroupError::Make { source, .. }) if is_anothers(&source) => {
                    made.cgroup.layout.remove(&mount_point);
                    continue;
                }
                kept => kept?,
            };
            made.cgroup.kept = made.cgroup.kept.max(kept);
            if kept == depth(&mount_point, &dir) {
                made.existed.push(dir);
            }
        }
        Ok(made)
    }
}

impl Made {
    /// The cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its directories that were there before.
    #[must_use]
    pub fn existed(&self) -> &[PathBuf] {
        &self.existed
    }

    /// Lets the directories stay.
    #[must_use]
    pub fn keep(mut self) -> Cgroup {
        self.made.clear();
        self.cgroup.clone()
    }

    /// Makes `dir` and what is missing above it; gives the number of levels below `mount_point` that were there.
    fn directory(&mut self, mount_point: &Path, dir: &Path) -> Result<usize, CgroupError> {
        let failed = |source| CgroupError::Make {
            dir: dir.to_owned(),
            source,
        };
        // A level above can go away with its last cgroup between two of these calls.
        let mut kept = None;
        for _ in 0..ATTEMPTS {
            match std::fs::create_dir(dir) {
                Ok(()) => {
                    self.made.push(dir.to_owned());
                    return Ok(kept.unwrap_or_else(|| depth(mount_point, dir) - 1));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Ok(depth(mount_point, dir));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && dir != mount_point => {
                    let parent = dir.parent().unwrap_or(mount_point);
                    kept = Some(self.directory(mount_point, parent)?);
                }
                Err(source) => return Err(failed(source)),
            }
        }
        Err(failed(io::Error::from_raw_os_error(libc::ENOENT)))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.made.drain(..).rev() {
            // Whoever is in it by now keeps it.
            drop(std::fs::remove_dir(dir));
        }
    }
}

const ATTEMPTS: u32 = 100;

fn depth(mount_point: &Path, dir: &Path) -> usize {
    dir.components().count() - mount_point.components().count()
}

fn is_anothers(source: &io::Error) -> bool {
    let refused = matches!(
        source.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::EROFS)
    );
    refused && !rustix::process::geteuid().is_root()
}
