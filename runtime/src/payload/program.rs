//! Where the program is.

use std::ffi::{CStr, CString};
use std::io;

/// There is no such program in the container. The words are those that container engines look for to choose the
/// exit codes 126 and 127.
#[derive(Clone, Debug, thiserror::Error)]
#[error("exec: {program:?}: {why}")]
pub(crate) struct LookupError {
    program: String,
    why: String,
}

/// The program's path: as it is when it has a slash, else from PATH of the container's environment.
pub(crate) fn find_program(name: &CStr, env: &[CString]) -> Result<CString, LookupError> {
    let failed = |why: String| LookupError {
        program: name.to_string_lossy().into_owned(),
        why,
    };
    if name.to_bytes().contains(&b'/') {
        let why = |error: io::Error| match error.kind() {
            io::ErrorKind::IsADirectory => failed(words(&error)),
            _ => failed(format!("stat {}: {}", name.to_string_lossy(), words(&error))),
        };
        return check_program(name).map(|()| name.to_owned()).map_err(why);
    }
    let path = env
        .iter()
        .find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="))
        .unwrap_or_default();
    let mut denied = false;
    for directory in path.split(|byte| *byte == b':') {
        let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
        let Ok(candidate) = CString::new([directory, b"/", name.to_bytes()].concat()) else {
            continue;
        };
        match check_program(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    Err(failed(if denied {
        "permission denied".to_owned()
    } else {
        "executable file not found in $PATH".to_owned()
    }))
}

fn check_program(path: &CStr) -> io::Result<()> {
    use rustix::fs::{Access, FileType};
    let found = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(rustix::fs::access(path, Access::EXEC_OK)?)
}

/// An error in the words of C, without Rust's "(os error N)".
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        // What execve(2) says of one, EACCES, is what engines look for.
        io::ErrorKind::IsADirectory => "is a directory: permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let env = [c"PATH=/nowhere:/bin:/usr/bin".to_owned()];
        assert_eq!(find_program(c"sh", &env).unwrap().as_c_str(), c"/bin/sh");
        let error = find_program(c"surely-not-there", &env).unwrap_err().to_string();
        assert!(error.ends_with("executable file not found in $PATH"), "{error}");
        let error = find_program(c"/surely/not/there", &env).unwrap_err().to_string();
        assert!(error.ends_with("no such file or directory"), "{error}");
        let error = find_program(c"/etc", &env).unwrap_err().to_string();
        assert!(error.ends_with("is a directory: permission denied"), "{error}");
    }
}
