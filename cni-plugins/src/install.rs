//! `coracle-cni install DIR`: links under the names that configurations use.

use crate::table::PLUGINS;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The links could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// This program's own file is unknown.
    #[error("find this program's file")]
    Own(#[source] io::Error),
    /// A file that is not a link is in the way.
    #[error("{0} exists and is not a link; remove it first")]
    InTheWay(PathBuf),
    /// Making one failed.
    #[error("make {path}")]
    Make {
        /// The link or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes a link for each plugin in `dir`; replaces links, never files.
pub(crate) fn install(dir: &Path) -> Result<(), InstallError> {
    let own = env::current_exe()
        .and_then(fs::canonicalize)
        .map_err(InstallError::Own)?;
    fs::create_dir_all(dir).map_err(|source| InstallError::Make {
        path: dir.to_owned(),
        source,
    })?;
    let paths: Vec<_> = PLUGINS.iter().map(|plugin| dir.join(plugin.name)).collect();
    // All are looked at before the first is changed.
    for path in &paths {
        if path
            .symlink_metadata()
            .is_ok_and(|data| !data.file_type().is_symlink())
        {
            return Err(InstallError::InTheWay(path.clone()));
        }
    }
    paths.iter().try_for_each(|path| link(&own, path))
}

/// By rename: a plugin that is called at this moment finds the old link or the new one.
fn link(target: &Path, path: &Path) -> Result<(), InstallError> {
    let new = path.with_extension("coracle-new");
    let failed = |source| InstallError::Make {
        path: path.to_owned(),
        source,
    };
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    symlink(target, &new).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}
