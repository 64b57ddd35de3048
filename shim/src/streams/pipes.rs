//! Both sides of a process's standard streams.

use std::io;
use std::os::fd::OwnedFd;

use coracle_runtime::Stdio;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::Output;

/// The shim's side.
pub(crate) struct Ends {
    /// Read ends of standard output and error; `None` with a terminal, whose master comes from the runtime.
    pipes: Option<(OwnedFd, OwnedFd)>,
    /// The write end of standard input; `None`: that is /dev/null, or the terminal.
    pub(crate) stdin: Option<OwnedFd>,
}

/// Makes both sides. Without `stdin` the process reads from /dev/null.
pub(crate) fn open(terminal: bool, stdin: bool) -> io::Result<(Stdio, Ends)> {
    if terminal {
        let ends = Ends {
            pipes: None,
            stdin: None,
        };
        return Ok((Stdio::Terminal, ends));
    }
    let (stdin, held) = if stdin {
        let (theirs, ours) = pipe()?;
        (theirs, Some(ours))
    } else {
        (null()?, None)
    };
    let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
    let stdio = Stdio::Fds {
        stdin,
        stdout,
        stderr,
    };
    let ends = Ends {
        pipes: Some((out, err)),
        stdin: held,
    };
    Ok((stdio, ends))
}

impl Ends {
    /// What is to be read, once the process is there. `console`: the master of its terminal.
    pub(crate) fn take_output(&mut self, console: Option<OwnedFd>) -> Option<Output> {
        match (console, self.pipes.take()) {
            (Some(master), _) => Some(Output::Terminal(master)),
            (None, Some((stdout, stderr))) => Some(Output::Pipes { stdout, stderr }),
            (None, None) => None,
        }
    }
}

/// A pipe: the end to read and the end to write.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
