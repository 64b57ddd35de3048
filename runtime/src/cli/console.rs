//! The caller's terminal, connected with the container's.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Both terminals. Dropping it gives the caller's its old settings back.
#[derive(Debug)]
pub(super) struct Console<'a> {
    master: &'a OwnedFd,
    stdin: io::Stdin,
    stdout: io::Stdout,
    saved: Option<Termios>,
    typed: Pump,
    shown: Pump,
}

/// Gives the terminal behind `master` the size of the caller's, if that is one.
pub(super) fn take_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}

const BUFFER: usize = 4096;
/// More than the kernel buffers of a pty, which is some 64 KiB.
const MOST_LEFT: usize = 1 << 20;

/// Bytes on their way from one descriptor to another.
#[derive(Debug)]
struct Pump {
    buffer: [u8; BUFFER],
    start: usize,
    end: usize,
    open: bool,
}

impl<'a> Console<'a> {
    /// Puts the caller's terminal, if it is one, into raw mode: the container's does the editing.
    pub(super) fn attach(master: &'a OwnedFd) -> io::Result<Self> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let saved = tcgetattr(&stdin).ok();
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        }
        let console = Self {
            master,
            stdin,
            stdout,
            saved,
            typed: Pump::new(),
            shown: Pump::new(),
        };
        console.resize();
        Ok(console)
    }

    /// Gives the container's terminal the size of the caller's.
    pub(super) fn resize(&self) {
        take_size(self.master);
    }

    /// Fills in what to wait for.
    pub(super) fn watch<'p>(&'p self, ready: &mut [PollFd<'p>]) {
        let mut master = PollFlags::empty();
        master.set(PollFlags::IN, self.shown.wants_more());
        master.set(PollFlags::OUT, self.typed.has_some());
        let wanted = [
            (self.master.as_fd(), master, !master.is_empty()),
            (self.stdin.as_fd(), PollFlags::IN, self.typed.wants_more()),
            (self.stdout.as_fd(), PollFlags::OUT, self.shown.has_some()),
        ];
        for (slot, (fd, flags, _)) in ready.iter_mut().zip(wanted.into_iter().filter(|(_, _, on)| *on)) {
            *slot = PollFd::from_borrowed_fd(fd, flags);
        }
    }

    /// Moves what can be moved without waiting.
    pub(super) fn copy(&mut self) {
        self.shown.move_ready(self.master.as_fd(), self.stdout.as_fd());
        self.typed.move_ready(self.stdin.as_fd(), self.master.as_fd());
    }

    /// Shows the rest, after the end of the container: as much as a terminal can hold, should somebody go on writing.
    pub(super) fn drain(&mut self) {
        for _ in 0..MOST_LEFT / BUFFER {
            if !self.shown.fill(self.master.as_fd()) && !self.shown.has_some() {
                return;
            }
            while self.shown.has_some() && self.shown.open {
                self.shown.flush(self.stdout.as_fd());
            }
            if !self.shown.open {
                return;
            }
        }
    }
}

impl Drop for Console<'_> {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(&self.stdin, OptionalActions::Now, saved);
        }
    }
}

impl Pump {
    fn new() -> Self {
        Self {
            buffer: [0; BUFFER],
            start: 0,
            end: 0,
            open: true,
        }
    }

    fn has_some(&self) -> bool {
        self.start < self.end
    }

    fn wants_more(&self) -> bool {
        self.open && !self.has_some()
    }

    fn move_ready(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
        self.fill(from);
        if self.has_some() && is_ready(to, PollFlags::OUT) {
            self.flush(to);
        }
    }

    /// Reads if there is something to read and room for it; says whether there was.
    fn fill(&mut self, from: BorrowedFd<'_>) -> bool {
        if !self.wants_more() || !is_ready(from, PollFlags::IN) {
            return false;
        }
        match rustix::io::read(from, &mut self.buffer) {
            Ok(0) => self.open = false,
            Ok(length) => (self.start, self.end) = (0, length),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A terminal whose other end is closed (EIO).
            Err(_) => self.open = false,
        }
        self.has_some()
    }

    fn flush(&mut self, to: BorrowedFd<'_>) {
        match rustix::io::write(to, &self.buffer[self.start..self.end]) {
            Ok(length) => self.start += length,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => {
                self.open = false;
                self.start = self.end;
            }
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&now)), Ok(ready) if ready > 0)
}
