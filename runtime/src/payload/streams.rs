//! The standard streams of a payload.

use super::{PayloadError, ToMaker, step};
use crate::plan::Stdio;
use crate::rootfs::console::Terminal;
use rustix::fs::{FileType, Uid};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Makes `terminal` the standard streams, its other end going to the maker, or without one what `stdio` says.
pub(crate) fn take_streams(
    stdio: Stdio,
    terminal: Option<Terminal>,
    socket: BorrowedFd<'_>,
) -> Result<(), PayloadError> {
    let failed = step::<io::Error>("setting up the standard streams");
    if let Some(Terminal { master, slave }) = terminal {
        ToMaker::Console(master)
            .send(socket)
            .map_err(step("sending the terminal"))?;
        return install_streams([&slave, &slave, &slave]).map_err(failed);
    }
    match stdio {
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => install_streams([&stdin, &stdout, &stderr]).map_err(failed),
        Stdio::Inherit | Stdio::Terminal => Ok(()),
    }
}

/// Makes the terminal on standard input that of this process's session, which it has begun.
pub(crate) fn control_terminal() -> Result<(), PayloadError> {
    rustix::process::ioctl_tiocsctty(io::stdin()).map_err(step("taking control of the terminal"))
}

/// Makes the standard streams `uid`'s: it may open them anew by their names in /proc, as in a login session.
pub(crate) fn give_streams(uid: u32) {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    give([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], uid);
}

/// The same before a user namespace with this `uid_map` is entered: from inside, what belongs to an id that the map lacks
/// can be given to nobody (user_namespaces(7)). A terminal is made in there.
pub(crate) fn give_streams_into(uid_map: &str, stdio: &Stdio, uid: u32) {
    match (stdio, outside(uid_map, uid)) {
        (Stdio::Inherit, Some(uid)) => give_streams(uid),
        (
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            },
            Some(uid),
        ) => give([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], uid),
        (Stdio::Terminal, _) | (_, None) => {}
    }
}

fn give(streams: [BorrowedFd<'_>; 3], uid: u32) {
    for stream in streams {
        let wanted = rustix::fs::fstat(stream).is_ok_and(|stat| stat.st_uid != uid);
        if wanted && !is_everybodys(stream) {
            // Not possible for everything one can be given (sockets, files of a read-only file system): no harm done.
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// A device of the host, like /dev/null and /dev/zero: only of terminals there is one for each user.
fn is_everybodys(stream: BorrowedFd<'_>) -> bool {
    let kind = rustix::fs::fstat(stream).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::CharacterDevice) => !rustix::termios::isatty(stream),
        Ok(FileType::BlockDevice) => true,
        _ => false,
    }
}

/// The id outside that a user namespace's map has for `id`.
fn outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(size))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        let offset = id.checked_sub(inside).filter(|offset| *offset < size)?;
        outside.checked_add(offset)
    })
}

fn install_streams([stdin, stdout, stderr]: [&OwnedFd; 3]) -> io::Result<()> {
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_as_the_kernel_does() {
        let map = "         0     100000      65536\n 70000 5 1\n";
        assert_eq!(outside(map, 0), Some(100_000));
        assert_eq!(outside(map, 65535), Some(165_535));
        assert_eq!(outside(map, 65536), None);
        assert_eq!(outside(map, 70000), Some(5));
    }
}
