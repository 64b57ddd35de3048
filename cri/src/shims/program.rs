//! Which program is the shim.

use std::path::{Path, PathBuf};

use super::ShimError;

/// Its name, where no path is configured.
pub(super) const PROGRAM: &str = "coracle-shim";

/// The shim program: as configured, beside this one, or on PATH.
pub(crate) fn find_program(configured: Option<&Path>) -> Result<PathBuf, ShimError> {
    if let Some(program) = configured {
        return match program.is_file() {
            true => Ok(program.to_owned()),
            false => Err(ShimError::NoSuchProgram(program.to_owned())),
        };
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = beside.into_iter().chain(std::env::split_paths(&path));
    directories
        .map(|directory| directory.join(PROGRAM))
        .find(|program| program.is_file())
        .ok_or(ShimError::NoProgram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_shim_has_to_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("shim");
        let refused = find_program(Some(&program)).unwrap_err().to_string();
        assert!(refused.ends_with("/shim: no such program"), "{refused}");
        std::fs::write(&program, "").unwrap();
        assert_eq!(find_program(Some(&program)).unwrap(), program);
    }
}
