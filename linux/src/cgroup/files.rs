//! Reading and writing control files. Errors name the file and the value.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::CgroupError;

/// The whole text of `dir/file`.
///
/// # Errors
/// It cannot be read.
pub fn read(dir: &Path, file: &str) -> Result<String, CgroupError> {
    let path = dir.join(file);
    let mut text = String::new();
    std::fs::File::open(&path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|source| CgroupError::Read { file: path, source })?;
    Ok(text)
}

/// A file that holds one number; `None` for `max`.
pub(super) fn read_number(dir: &Path, file: &str) -> Result<Option<u64>, CgroupError> {
    Ok(read(dir, file)?.trim().parse().ok())
}

/// The number after `name ` on a line of its own.
pub(super) fn value(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
}

/// Writes one value with one write(2), as control files want it.
///
/// # Errors
/// There is no such file, or the kernel does not take the value.
pub fn write(dir: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = dir.join(file);
    put(&path, value).map_err(|source| CgroupError::Write {
        file: path,
        value: value.to_owned(),
        source,
    })
}

/// Like [`write`], without an error of its own.
pub(super) fn put(path: &Path, value: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

/// The directories in `dir`; none when it is gone.
pub(super) fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Whether an I/O error says that a cgroup is gone: its files answer ENODEV once it is being removed.
pub(super) fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Turns "the cgroup is gone" into `None`.
pub(super) fn gone_is_none<T>(result: Result<T, CgroupError>) -> Result<Option<T>, CgroupError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(CgroupError::Read { source, .. } | CgroupError::Write { source, .. }) if is_gone(&source) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
