//! Removing directories that may already be gone, and may hold what a container made in them: any depth, any number.

use std::path::{Path, PathBuf};

use coracle_linux::tree;

use super::Failure;
use crate::error::chain;

/// Removes a directory and all below it; none there is fine.
pub(super) async fn remove_all(path: &Path) -> Result<(), Failure> {
    let gone = path.to_owned();
    let removed = tokio::task::spawn_blocking(move || tree::remove(&gone)).await;
    removed.map_err(|_| Failure::Join)?.map_err(|source| Failure::Io {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}

/// The same in the background. What is left is tried again at the daemon's next start.
pub(crate) fn remove_later(path: PathBuf) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = tree::remove(&path) {
            tracing::warn!(path = %path.display(), error = %chain(&error), "cannot remove");
        }
    });
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// More levels than a process may have descriptors.
    const LEVELS: usize = 2000;

    #[tokio::test]
    async fn a_layer_is_removed_however_deep_it_is() {
        let limit = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: limit.current.map(|current| current.min(1000)),
            ..limit
        };
        setrlimit(Resource::Nofile, low).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let layer = directory.path().join("layer");
        std::fs::create_dir(&layer).unwrap();
        let mut place = std::os::fd::OwnedFd::from(std::fs::File::open(&layer).unwrap());
        for _ in 0..LEVELS {
            mkdirat(&place, "a-directory", Mode::RWXU).unwrap();
            place = openat(
                &place,
                "a-directory",
                OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .unwrap();
        }
        drop(place);
        remove_all(&layer).await.unwrap();
        assert!(!layer.exists());
        remove_all(&layer).await.unwrap();
    }
}
