//! What the container itself has to say about the environment: HOME.

use std::ffi::CString;
use std::io;

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
}
