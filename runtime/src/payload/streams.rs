//! The standard streams of a payload.

use super::{PayloadError, ToMaker, step};
use crate::plan::Stdio;
use crate::rootfs::console::Terminal;
use rustix::fs::{Stat, Uid};
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
    // /dev/null is everybody's.
    let is_null = |stat: &Stat| stat.st_rdev == rustix::fs::makedev(1, 3);
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let wanted = rustix::fs::fstat(stream).is_ok_and(|stat| stat.st_uid != uid && !is_null(&stat));
        if wanted {
            // Not possible for everything one can be given (sockets, files of a read-only file system): no harm done.
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

fn install_streams([stdin, stdout, stderr]: [&OwnedFd; 3]) -> io::Result<()> {
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    Ok(())
}
