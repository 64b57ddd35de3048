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
        let home = home_of(&passwd, uid).unwrap_or(b"/");
        env.extend(CString::new([b"HOME=", home].concat()));
    }
    env
}

/// The beginning of the container's /etc/passwd, if it is a file: an image may put a fifo there, or /dev/zero.
fn read_passwd() -> io::Result<Vec<u8>> {
    use rustix::fs::{FileType, Mode, OFlags};
    use std::io::Read;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/etc/passwd", flags, Mode::empty())?;
    let mut text = Vec::new();
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::RegularFile {
        std::fs::File::from(file)
            .take(PASSWD_MAX)
            .read_to_end(&mut text)?;
    }
    Ok(text)
}

/// The home directory of a user in a passwd file (passwd(5)). It is the image's and may hold anything: each line counts for
/// itself, and what is no entry spoils no other.
fn home_of(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    let lines = passwd.split(|byte| *byte == b'\n');
    let entries = lines.map(|line| line.trim_ascii().split(|byte| *byte == b':').collect::<Vec<_>>());
    let id = |field: &&[u8]| std::str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    let mut found = entries.filter(|entry| entry.get(2).and_then(id) == Some(uid));
    found
        .next()
        .and_then(|entry| entry.get(5).copied())
        .filter(|home| home.starts_with(b"/") && !home.contains(&0))
}

/// Bytes; what comes after is not looked at.
const PASSWD_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_that_of_the_user() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/srv:\n";
        assert_eq!(home_of(passwd, 33), Some(&b"/srv"[..]));
        assert_eq!(home_of(passwd, 0), Some(&b"/root"[..]));
        assert_eq!(home_of(passwd, 1), None);
    }

    #[test]
    fn an_odd_line_spoils_no_other() {
        let mut passwd =
            b"\xff\xfe:x:1:1\n+::::::\n:::\nbad:x:-1:0::/a:\nhuge:x:99999999999:0::/b:\n\0\n".to_vec();
        passwd.extend(vec![b'x'; 1 << 20]);
        passwd.extend(b"\n# a comment\nr\xe9al:x:7:7:\xe9:/home/r\xe9al:/bin/sh\r\nnul:x:8:8::/a\0b:\nrel:x:9:9::x:\nlast:x:10:10::/last");
        assert_eq!(home_of(&passwd, 7), Some(&b"/home/r\xe9al"[..]));
        assert_eq!(home_of(&passwd, 10), Some(&b"/last"[..]));
        for none in [1, 8, 9, u32::MAX] {
            assert_eq!(home_of(&passwd, none), None, "{none}");
        }
    }

    #[test]
    fn a_fields_carriage_return_is_not_the_homes() {
        assert_eq!(home_of(b"a:x:1:1::/home\r\n", 1), Some(&b"/home"[..]));
    }
}
