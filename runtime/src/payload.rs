//! What the first process of a container and an additional one do alike on their way to the payload.

use coracle_linux::keyring;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// There is no such program in the container. The words are those that container engines look for to choose the
/// exit codes 126 and 127.
#[derive(Debug, thiserror::Error)]
#[error("exec: {program:?}: {why}")]
pub(crate) struct LookupError {
    program: String,
    why: String,
}

/// In a user namespace that it has just entered, a process is nobody until it becomes root there.
pub(crate) fn become_root_of_user_namespace() -> io::Result<()> {
    use rustix::fs::{Gid, Uid};
    match rustix::thread::set_thread_groups(&[]) {
        // Where setgroups is denied there is nothing to give up either.
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let (gid, uid) = (Gid::ROOT, Uid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Enters the session keyring of container `id`, made when there is none, so that the process does not see the keys
/// of whoever started it.
pub(crate) fn join_keyring(id: &str) -> io::Result<()> {
    match keyring::join_session(&CString::new(format!("_ses.{id}"))?) {
        // A kernel without keys has none to see.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        done => done,
    }
}

/// Makes these descriptors the standard streams.
pub(crate) fn be_streams([stdin, stdout, stderr]: [&OwnedFd; 3]) -> io::Result<()> {
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    Ok(())
}

/// Makes the standard streams `uid`'s: it may open them anew by their names in /proc, as in a login session.
pub(crate) fn give_streams(uid: u32) {
    let streams = [
        io::stdin().as_fd().try_clone_to_owned(),
        io::stdout().as_fd().try_clone_to_owned(),
        io::stderr().as_fd().try_clone_to_owned(),
    ];
    for stream in streams.into_iter().flatten() {
        // /dev/null is everybody's.
        let is_null = |stat: &rustix::fs::Stat| stat.st_rdev == rustix::fs::makedev(1, 3);
        let wanted = rustix::fs::fstat(&stream).is_ok_and(|stat| stat.st_uid != uid && !is_null(&stat));
        if wanted {
            // Not possible for everything one can be given (sockets, files of a read-only file system): no harm done.
            let _ = rustix::fs::fchown(&stream, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

/// The environment with HOME, from the container's /etc/passwd where it is missing or empty.
pub(crate) fn with_home(env: &[CString], uid: u32) -> Vec<CString> {
    let mut env = env.to_vec();
    let has_home = |variable: &CString| {
        let bytes = variable.as_bytes();
        bytes.starts_with(b"HOME=") && bytes.len() > 5
    };
    if !env.iter().any(has_home) {
        env.retain(|variable| !variable.as_bytes().starts_with(b"HOME="));
        let passwd = read_passwd().unwrap_or_default();
        let home = home_of(&passwd, uid).unwrap_or("/");
        env.extend(CString::new(format!("HOME={home}")));
    }
    env
}

/// The container's /etc/passwd, if it is a file of a reasonable size: an image may put a fifo there, or /dev/zero.
fn read_passwd() -> io::Result<String> {
    use rustix::fs::{FileType, Mode, OFlags};
    use std::io::Read;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/etc/passwd", flags, Mode::empty())?;
    let mut text = String::new();
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::RegularFile {
        std::fs::File::from(file)
            .take(1 << 20)
            .read_to_string(&mut text)?;
    }
    Ok(text)
}

/// The home directory of a user in the text of a passwd file (passwd(5)).
fn home_of(passwd: &str, uid: u32) -> Option<&str> {
    let entries = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = entries.filter(|entry| entry.get(2).and_then(|id| id.parse().ok()) == Some(uid));
    found
        .next()
        .and_then(|entry| entry.get(5).copied())
        .filter(|home| !home.is_empty())
}

/// The program's path: as it is when it has a slash, else from PATH of the container's environment.
pub(crate) fn find_program(name: &CStr, env: &[CString]) -> Result<CString, LookupError> {
    let failed = |why: String| LookupError {
        program: name.to_string_lossy().into_owned(),
        why,
    };
    if name.to_bytes().contains(&b'/') {
        let why = |error: io::Error| failed(format!("stat {}: {}", name.to_string_lossy(), words(&error)));
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
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_that_of_the_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/srv:\n";
        assert_eq!(home_of(passwd, 33), Some("/srv"));
        assert_eq!(home_of(passwd, 0), Some("/root"));
        assert_eq!(home_of(passwd, 1), None);
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let env = [c"PATH=/nowhere:/bin:/usr/bin".to_owned()];
        assert_eq!(find_program(c"sh", &env).unwrap().as_c_str(), c"/bin/sh");
        let error = find_program(c"surely-not-there", &env).unwrap_err().to_string();
        assert!(error.ends_with("executable file not found in $PATH"), "{error}");
        let error = find_program(c"/surely/not/there", &env).unwrap_err().to_string();
        assert!(error.ends_with("no such file or directory"), "{error}");
        let error = find_program(c"/etc", &env).unwrap_err().to_string();
        assert!(error.ends_with("is a directory"), "{error}");
    }
}
