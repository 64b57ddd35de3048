//! The container's network namespace: entered for a moment, left again.

use crate::failure::{Coded, Outcome};
use coracle_cni_protocol::Code;
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::netlink::{Protocol, Socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const OWN: &str = "/proc/self/ns/net";

/// A namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    /// It does not open.
    #[error("failed to open netns {path:?}")]
    Open {
        /// `CNI_NETNS`.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{0:?} is not a network namespace")]
    Kind(PathBuf),
    /// Changing over failed.
    #[error("enter network namespace {path:?}")]
    Enter {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Coded for NetnsError {
    fn code(&self) -> Code {
        Code::INVALID_NETNS
    }
}

/// The container's network namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    path: PathBuf,
    container: OwnedFd,
    host: OwnedFd,
}

impl Netns {
    /// Opens the namespace at `CNI_NETNS`.
    pub(crate) fn open(path: &str) -> Result<Self, NetnsError> {
        let path = PathBuf::from(path);
        let container = namespace::open(&path).map_err(|source| NetnsError::Open {
            path: path.clone(),
            source,
        })?;
        if namespace::kind(container.as_fd()) != Some(Namespaces::NET) {
            return Err(NetnsError::Kind(path));
        }
        let own = Path::new(OWN);
        let host = namespace::open(own).map_err(|source| NetnsError::Open {
            path: own.to_owned(),
            source,
        })?;
        Ok(Self {
            path,
            container,
            host,
        })
    }

    /// Opens it unless it is gone or was never named.
    pub(crate) fn open_if_there(path: &str) -> Option<Self> {
        if path.is_empty() {
            None
        } else {
            Self::open(path).ok()
        }
    }

    /// The namespace's descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }

    /// Does something inside and comes back. The program has one thread, so nothing else moves along.
    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        enter(&self.path, self.container.as_fd())?;
        let done = work();
        enter(Path::new(OWN), self.host.as_fd())?;
        done
    }

    /// A route socket that stays inside.
    pub(crate) fn socket(&self) -> Outcome<Socket> {
        self.inside(|| Ok(Socket::open(Protocol::Route)?))
    }
}

/// Whether the path is the namespace this program is in.
pub(crate) fn is_own(path: &str) -> Outcome<bool> {
    Ok(identity(Path::new(path))? == identity(Path::new(OWN))?)
}

/// Device and inode.
fn identity(path: &Path) -> Result<(u64, u64), NetnsError> {
    let data = path.metadata().map_err(|source| NetnsError::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok((data.dev(), data.ino()))
}

fn enter(path: &Path, fd: BorrowedFd<'_>) -> Result<(), NetnsError> {
    namespace::enter(fd, Namespaces::NET).map_err(|source| NetnsError::Enter {
        path: path.to_owned(),
        source,
    })
}
