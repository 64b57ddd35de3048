//! What can go wrong while a root file system is assembled.

use std::io;
use std::path::PathBuf;

/// A root file system that could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The root file system itself.
    #[error("attaching the root file system at {path}")]
    AttachRoot {
        /// `root.path`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The overlay of an image's layers.
    #[error("mounting the overlay of {layers} layers at {path}")]
    MountOverlay {
        /// `root.path`.
        path: PathBuf,
        /// How many.
        layers: usize,
        /// Why.
        source: io::Error,
    },
    /// The propagation of the mounts that the namespace began with.
    #[error("cutting the mounts of the container off from the host's")]
    Isolate(#[source] io::Error),
    /// The source of a bind mount.
    #[error("mounting {destination}: opening its source {path}")]
    OpenSource {
        /// Where it was to go.
        destination: PathBuf,
        /// The source.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than the kernel takes.
    #[error("mounting {destination}: its options have {length} bytes; the kernel takes {most} in all")]
    LongOptions {
        /// Where it was to go.
        destination: PathBuf,
        /// Bytes, joined by commas.
        length: usize,
        /// The most there can be.
        most: usize,
    },
    /// The process that makes file systems for a container's user could not be made, or did not answer.
    #[error("lending the container file systems of the namespaces it joins: {doing}")]
    Lend {
        /// What.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file system of a joined namespace; the text is the chain of causes.
    #[error("{0}")]
    Lent(String),
    /// The place of a mount.
    #[error("mounting {destination}: making its mount point")]
    MountPoint {
        /// Where it was to go.
        destination: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The working directory was missing.
    #[error("process.cwd: making {path}")]
    WorkingDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A mount point in procfs that could change what the kernel is told.
    #[error("mounting {0}: it lies in the container's /proc, where only a few files may be mounted over")]
    InsideProc(PathBuf),
    /// A link where a kernel file system is to be mounted (CVE-2019-19921).
    #[error("mounting {0}: the mount point must be an ordinary directory")]
    NotOrdinary(PathBuf),
    /// The mount itself.
    #[error("mounting {destination} ({what})")]
    Mount {
        /// Where it was to go.
        destination: PathBuf,
        /// The type of the file system, or "bind".
        what: String,
        /// Why.
        source: io::Error,
    },
    /// An option that the file system does not take.
    #[error("mounting {destination} ({what}): option {option:?}")]
    Option {
        /// Where it was to go.
        destination: PathBuf,
        /// The type of the file system.
        what: String,
        /// The option.
        option: String,
        /// Why.
        source: io::Error,
    },
    /// The copy of what a tmpfs covers (`tmpcopyup`).
    #[error("mounting {destination} (tmpfs): copying {path} of the image into it")]
    CopyUp {
        /// Where it was to go.
        destination: PathBuf,
        /// What could not be copied, absolute in the container.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A device node or a link of /dev.
    #[error("making {path}")]
    Device {
        /// The path in the container.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The container's /dev/null is something else (CVE-2025-31133).
    #[error("the container's /dev/null is not the null device")]
    FakeNull,
    /// The container's devpts is something else (CVE-2025-52565).
    #[error("the container's /dev/pts/ptmx is not that of a devpts")]
    FakePtmx,
    /// The terminal.
    #[error("making the container's terminal: {doing}")]
    Console {
        /// The step.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A masked or read-only path.
    #[error("{doing} {path}")]
    Mask {
        /// Masking, or making read only.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A kernel parameter.
    #[error("setting the kernel parameter {path}")]
    Sysctl {
        /// Below `/proc/sys`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The change of the root directory.
    #[error("making the root file system the root directory: {doing}")]
    Pivot {
        /// The step.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}
