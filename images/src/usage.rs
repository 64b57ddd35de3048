//! Disk usage: of the store (kept in its records) and of a container's writable layer (sampled in the background).

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::remove::children;

/// Entries looked at between two pauses.
const BATCH: u32 = 256;

/// Disk space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes.
    pub bytes: u64,
    /// Files, directories, links.
    pub inodes: u64,
}

/// Measures a directory tree without following links or leaving it; a file with several names counts once. Looks at no more than
/// `entries_per_second`, so that a sample of a large layer does not compete with its container. What vanishes meanwhile is not counted.
pub async fn measure(directory: PathBuf, entries_per_second: u32) -> std::io::Result<Usage> {
    let pause = Duration::from_secs(1) * BATCH / entries_per_second.max(1);
    let mut walk = blocking(move || Walk::new(&directory)).await?;
    while !walk.pending.is_empty() {
        walk = blocking(move || walk.batch()).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(walk.usage)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
) -> std::io::Result<T> {
    Ok(tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)??)
}

struct Walk {
    root: OwnedFd,
    device: u64,
    /// Paths of directories still to be listed, relative to the root.
    pending: Vec<Vec<u8>>,
    linked: HashSet<u64>,
    usage: Usage,
}

impl Walk {
    fn new(directory: &std::path::Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&root)?;
        let mut walk = Self {
            root,
            device: stat.st_dev,
            pending: vec![b".".to_vec()],
            linked: HashSet::new(),
            usage: Usage::default(),
        };
        walk.count(&stat);
        Ok(walk)
    }

    fn count(&mut self, stat: &rustix::fs::Stat) {
        self.usage.inodes += 1;
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.usage.bytes = self.usage.bytes.saturating_add(blocks.saturating_mul(512));
    }

    /// Lists directories until about BATCH entries have been seen.
    fn batch(mut self) -> Result<Self, Errno> {
        let mut seen = 0;
        while seen < BATCH
            && let Some(path) = self.pending.pop()
        {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
            let directory =
                match rustix::fs::openat2(&self.root, path.as_slice(), flags, Mode::empty(), resolve) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    other => other?,
                };
            for (name, _) in children(&directory)? {
                seen += 1;
                self.visit(&directory, &path, &name)?;
            }
        }
        Ok(self)
    }

    fn visit(&mut self, directory: &OwnedFd, path: &[u8], name: &[u8]) -> Result<(), Errno> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_dev != self.device
            || (!is_directory && stat.st_nlink > 1 && !self.linked.insert(stat.st_ino))
        {
            return Ok(());
        }
        self.count(&stat);
        if is_directory {
            self.pending.push([path, name].join(&b'/'));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tree_is_measured_once_per_file() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("a")).unwrap();
        std::fs::write(root.join("a/file"), vec![1; 10_000]).unwrap();
        std::fs::hard_link(root.join("a/file"), root.join("link")).unwrap();
        std::os::unix::fs::symlink("/", root.join("a/outside")).unwrap();
        let usage = measure(root.to_owned(), 1_000_000).await.unwrap();
        assert_eq!(usage.inodes, 4);
        assert!((12_288..64_000).contains(&usage.bytes), "{usage:?}");
    }
}
