//! Kernel settings below `/proc/sys/net`, of the network namespace the program is in.

use crate::failure::Coded;
use coracle_cni_protocol::Code;
use std::fs;
use std::io;
use std::path::PathBuf;

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SysctlError {
    /// Reading failed.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Coded for SysctlError {
    fn code(&self) -> Code {
        Code::IO_FAILURE
    }
}

/// A setting, as its path below `/proc/sys` (interface names may contain dots, so no dots for slashes).
pub(crate) fn read(name: &str) -> Result<String, SysctlError> {
    let path = path(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) => Err(SysctlError::Read { path, source }),
    }
}

/// Writes a setting.
pub(crate) fn write(name: &str, value: &str) -> Result<(), SysctlError> {
    let path = path(name);
    fs::write(&path, value).map_err(|source| SysctlError::Write {
        path,
        value: value.to_owned(),
        source,
    })
}

/// Writes a setting unless it has the value or the kernel lacks it (a kernel without IPv6).
pub(crate) fn ensure(name: &str, value: &str) -> Result<(), SysctlError> {
    match read(name) {
        Ok(present) if present == value => Ok(()),
        Err(SysctlError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => write(name, value),
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}
