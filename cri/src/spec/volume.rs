//! A volume's source on the host: made if missing, followed through symlinks, and able to propagate mounts as asked.

use std::io;
use std::path::{Path, PathBuf};

use coracle_cri_api::runtime_v1::MountPropagation;
use coracle_linux::mountinfo::MountInfo;

use tonic::Code;

use crate::host_path;

/// One entry of config.mounts.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    /// In config.mounts.
    pub(crate) index: usize,
    pub(crate) host_path: PathBuf,
    pub(crate) container_path: PathBuf,
    pub(crate) readonly: bool,
    pub(crate) recursive_read_only: bool,
    pub(crate) propagation: MountPropagation,
}

/// What is on the host.
#[derive(Debug)]
pub(crate) enum Look {
    /// The path that is bound: without symlinks.
    Source(PathBuf),
    /// What has to be made, outermost first.
    Missing(Vec<PathBuf>),
}

/// Why a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("config.mounts[{index}].host_path: {action} {}", path.display())]
    Io {
        index: usize,
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("config.mounts[{index}].propagation: {} is on a mount that is not {wanted}", path.display())]
    Propagation {
        index: usize,
        path: PathBuf,
        wanted: &'static str,
    },
}

impl VolumeError {
    /// Its code for clients.
    pub(crate) fn code(&self) -> Code {
        match self {
            VolumeError::Propagation { .. } => Code::InvalidArgument,
            VolumeError::Io { .. } => Code::Internal,
        }
    }
}

impl Volume {
    /// Looks at the host and changes nothing.
    pub(crate) fn look(&self) -> Result<Look, VolumeError> {
        // A dangling symlink: its target is what is missing. `source` says so.
        let missing = if self.host_path.is_symlink() {
            Vec::new()
        } else {
            host_path::missing(&self.host_path).map_err(self.error("look at"))?
        };
        if missing.is_empty() {
            self.source().map(Look::Source)
        } else {
            Ok(Look::Missing(missing))
        }
    }

    /// Makes what is missing a directory.
    pub(crate) fn make(&self) -> Result<PathBuf, VolumeError> {
        host_path::make(&self.host_path).map_err(self.error("create"))?;
        self.source()
    }

    fn source(&self) -> Result<PathBuf, VolumeError> {
        let path = std::fs::canonicalize(&self.host_path).map_err(self.error("resolve"))?;
        self.check_propagation(&path)?;
        Ok(path)
    }

    fn error(&self, action: &'static str) -> impl FnOnce(io::Error) -> VolumeError {
        let (index, path) = (self.index, self.host_path.clone());
        move |source| VolumeError::Io {
            index,
            action,
            path,
            source,
        }
    }

    fn check_propagation(&self, path: &Path) -> Result<(), VolumeError> {
        let slave_suffices = match self.propagation {
            MountPropagation::PropagationPrivate => return Ok(()),
            MountPropagation::PropagationHostToContainer => true,
            MountPropagation::PropagationBidirectional => false,
        };
        let mounts = MountInfo::of_this_process().map_err(self.error("read the mounts for"))?;
        let mount = mounts.holding(path);
        if mount.is_some_and(|mount| mount.is_shared() || slave_suffices && mount.is_slave()) {
            return Ok(());
        }
        Err(VolumeError::Propagation {
            index: self.index,
            path: path.to_owned(),
            wanted: if slave_suffices {
                "shared or slave"
            } else {
                "shared"
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(host_path: PathBuf) -> Volume {
        Volume {
            index: 0,
            host_path,
            container_path: "/data".into(),
            readonly: false,
            recursive_read_only: false,
            propagation: MountPropagation::PropagationPrivate,
        }
    }

    #[test]
    fn a_missing_path_is_told_and_made_and_a_symlink_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let base = std::fs::canonicalize(directory.path()).unwrap();
        let absent = volume(base.join("a/b"));
        let Look::Missing(missing) = absent.look().unwrap() else {
            panic!("it is not there");
        };
        assert_eq!(missing, [base.join("a"), base.join("a/b")]);
        assert_eq!(absent.make().unwrap(), base.join("a/b"));
        std::os::unix::fs::symlink("a/b", base.join("link")).unwrap();
        for there in [base.join("a/b"), base.join("link")] {
            let Look::Source(source) = volume(there).look().unwrap() else {
                panic!("it is there");
            };
            assert_eq!(source, base.join("a/b"));
        }
        std::os::unix::fs::symlink("nowhere", base.join("dangling")).unwrap();
        let error = volume(base.join("dangling")).look().unwrap_err().to_string();
        assert!(error.contains("config.mounts[0].host_path"), "{error}");
    }
}
