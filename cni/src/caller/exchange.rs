//! Input to a child, output from it, and its end, within a time and a size.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdin, ExitStatus};
use std::time::{Duration, Instant};

/// A result is a few kilobytes; what prints more than this is not a plugin.
pub(super) const MOST_OUTPUT: usize = 16 << 20;
/// How long a plugin that was killed may take to leave.
const LEAVE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// How a child ended.
pub(super) struct Ended {
    /// With which code or by which signal.
    pub(super) status: ExitStatus,
    /// What it printed.
    pub(super) stdout: Vec<u8>,
    /// And to standard error.
    pub(super) stderr: Vec<u8>,
}

/// The exchange failed; the child is killed.
pub(super) enum Failure {
    /// Talking to it did.
    Io(io::Error),
    /// It did not end in time.
    Timeout,
    /// It printed more than [`MOST_OUTPUT`].
    TooMuch,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Feeds the child, collects its output and its end; kills it and what it started when that fails.
pub(super) fn talk(mut child: Child, input: &[u8], limit: Duration) -> Result<Ended, Failure> {
    let group = Pid::from_child(&child);
    match exchange(&mut child, input, Instant::now() + limit) {
        Ok((stdout, stderr)) => Ok(Ended {
            status: child.wait()?,
            stdout,
            stderr,
        }),
        Err(failure) => {
            // Best effort: it may have ended this moment.
            let _ = kill_process_group(group, Signal::KILL);
            let _ = child.kill();
            collect(child);
            Err(failure)
        }
    }
}

/// What was killed leaves at once, unless the kernel holds it: then a thread waits for it, and not the caller.
fn collect(mut child: Child) {
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let ended =
        pidfd.is_ok_and(|pidfd| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&LEAVE)) == Ok(1));
    if ended {
        // It is there to be collected: this cannot fail.
        let _ = child.wait();
    } else {
        // Without a thread it stays a zombie for as long as this process lives.
        let _ = std::thread::Builder::new().spawn(move || child.wait());
    }
}

fn exchange(child: &mut Child, input: &[u8], end: Instant) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(io::Error::from)?;
    let mut stdin = child.stdin.take();
    let mut stdout = Stream::of(child.stdout.take())?;
    let mut stderr = Stream::of(child.stderr.take())?;
    let mut left = input;
    if let Some(pipe) = &stdin {
        rustix::io::ioctl_fionbio(pipe, true).map_err(io::Error::from)?;
    }
    loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        for pipe in [stdout.borrow(), stderr.borrow()].into_iter().flatten() {
            fds.push(PollFd::from_borrowed_fd(pipe, PollFlags::IN));
        }
        wait(&mut fds, end)?;
        let ended = !fds.first().is_none_or(|fd| fd.revents().is_empty());
        drop(fds);
        if feed(stdin.as_mut(), &mut left)? {
            stdin = None;
        }
        stdout.drain()?;
        stderr.drain()?;
        // A daemon that a plugin leaves behind may hold the pipes open: the plugin's own end counts.
        if ended {
            return Ok((stdout.bytes, stderr.bytes));
        }
    }
}

/// Waits until there is something to do.
fn wait(fds: &mut [PollFd<'_>], end: Instant) -> Result<(), Failure> {
    let rest = end
        .checked_duration_since(Instant::now())
        .ok_or(Failure::Timeout)?;
    let rest = Timespec::try_from(rest).map_err(|_| Failure::Timeout)?;
    match poll(fds, Some(&rest)) {
        Ok(0) => Err(Failure::Timeout),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Failure::Io(error.into())),
    }
}

/// Writes what the pipe takes; true when there is nothing more to write.
fn feed(stdin: Option<&mut ChildStdin>, left: &mut &[u8]) -> io::Result<bool> {
    let Some(stdin) = stdin else { return Ok(true) };
    while !left.is_empty() {
        match stdin.write(left) {
            Ok(count) => *left = left.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // It does not read its input: VERSION does not have to.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// One of the child's outputs.
struct Stream<R> {
    pipe: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Stream<R> {
    fn of(pipe: Option<R>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            pipe,
            bytes: Vec::new(),
        })
    }

    fn borrow(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there.
    fn drain(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 8192];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => self
                    .bytes
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Io(error)),
            }
            if self.bytes.len() > MOST_OUTPUT {
                return Err(Failure::TooMuch);
            }
        }
        Ok(())
    }
}
