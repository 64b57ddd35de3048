//! A volume's source on the host: made if missing, followed through symlinks, and able to propagate mounts as asked.

use std::io;
use std::path::{Path, PathBuf};

use coracle_cri::runtime_v1::MountPropagation;

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
        let wanted = match self.propagation {
            MountPropagation::PropagationPrivate => return Ok(()),
            MountPropagation::PropagationHostToContainer => "shared or slave",
            MountPropagation::PropagationBidirectional => "shared",
        };
        let mountinfo =
            std::fs::read_to_string("/proc/self/mountinfo").map_err(|source| VolumeError::Io {
                index: self.index,
                action: "read /proc/self/mountinfo for",
                path: path.to_owned(),
                source,
            })?;
        let tags = propagation_of(&mountinfo, path);
        let shared = tags.contains("shared:");
        if shared || wanted != "shared" && tags.contains("master:") {
            return Ok(());
        }
        Err(VolumeError::Propagation {
            index: self.index,
            path: path.to_owned(),
            wanted,
        })
    }
}

/// The optional fields of the mount that holds `path`: the last line whose mount point is the longest prefix.
fn propagation_of<'m>(mountinfo: &'m str, path: &Path) -> &'m str {
    let lines = mountinfo.lines().filter_map(|line| {
        let (before, _) = line.split_once(" - ")?;
        let mut fields = before.splitn(7, ' ');
        let mount_point = PathBuf::from(unescape(fields.nth(4)?));
        path.starts_with(&mount_point).then(|| {
            (
                mount_point.components().count(),
                fields.nth(1).unwrap_or_default(),
            )
        })
    });
    // max_by_key returns the last of equals: a later mount on the same point covers the earlier.
    lines.max_by_key(|(depth, _)| *depth).map_or("", |(_, tags)| tags)
}

/// Space, tab, newline and backslash are octal there (proc_pid_mountinfo(5)).
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
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

    #[test]
    fn the_mount_that_holds_a_path_is_the_deepest_and_latest() {
        let mountinfo = "1 0 8:1 / / rw - ext4 a rw\n\
                         2 1 8:2 / /data rw shared:5 - ext4 b rw\n\
                         3 2 8:3 / /data/in\\040ner rw master:6 - ext4 c rw\n\
                         4 2 8:3 / /data rw shared:7 master:8 - ext4 c rw\n";
        assert_eq!(propagation_of(mountinfo, Path::new("/dat")), "");
        assert_eq!(
            propagation_of(mountinfo, Path::new("/data/x")),
            "shared:7 master:8"
        );
        assert_eq!(propagation_of(mountinfo, Path::new("/data/in ner/y")), "master:6");
    }
}
