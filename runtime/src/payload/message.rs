//! What a process on its way to a payload and its maker say to each other, over one socket that keeps message boundaries.
//!
//! A message is one byte of kind and the rest; descriptors travel beside it. The end of the stream means that the other
//! side is gone: for the maker, after [`ToMaker::Ready`] and its own [`FromMaker::Start`], that the payload runs.

use coracle_linux::pidfd::Pid;
use coracle_linux::socket;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// From the payload's process, or from the process in between, to its maker.
#[derive(Debug)]
pub(crate) enum ToMaker {
    /// By the process in between: the payload's process exists.
    Cloned(Pid, OwnedFd),
    /// The root file system is attached: the hooks of the runtime may run. Answered by [`FromMaker::HooksDone`].
    RunHooks,
    /// The other end of the container's terminal.
    Console(OwnedFd),
    /// The listener of its system call filter.
    SeccompListener(RawFd),
    /// Something could not be done as asked, and it goes on.
    Warning(String),
    /// Only the payload is left to be executed.
    Ready,
    /// It has failed; the text is the whole chain of causes.
    Failed(String),
    /// It is gone.
    End,
}

/// From the maker to the payload's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromMaker {
    /// It is known and may go on: its ids are mapped.
    Go,
    /// The hooks of the runtime have run.
    HooksDone,
    /// The agent has the listener of its filter.
    ListenerTaken,
    /// There is a record of it: it may outlive its maker.
    Recorded,
    /// Execute the payload.
    Start,
}

impl ToMaker {
    pub(crate) fn send(self, socket: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            Self::Cloned(pid, pidfd) => {
                let mut text = vec![b'P'];
                text.extend(pid.as_raw_nonzero().get().to_le_bytes());
                socket::send(socket, &text, &[pidfd.as_fd()])
            }
            Self::RunHooks => socket::send(socket, b"H", &[]),
            Self::Console(fd) => socket::send(socket, b"C", &[fd.as_fd()]),
            // With write(2), the one call that a filter never holds up: nobody serves its listener yet.
            Self::SeccompListener(number) => {
                let mut text = vec![b'N'];
                text.extend(number.to_le_bytes());
                rustix::io::write(socket, &text)
                    .map(drop)
                    .map_err(io::Error::from)
            }
            Self::Ready => socket::send(socket, b"R", &[]),
            Self::Warning(text) => send_text(socket, 'W', &text),
            Self::Failed(text) => send_text(socket, 'F', &text),
            Self::End => Ok(()),
        }
    }

    /// The next message, if there is one.
    pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let mut buffer = [0; LONGEST];
        let mut received = loop {
            match socket::receive(socket, &mut buffer, false) {
                Ok(received) => break received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // It ended with a message of ours unread. The kernel says so once, and before what it has sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error),
            }
        };
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let text = buffer.get(..received.length).ok_or_else(malformed)?;
        let fd = received.fds.pop();
        Ok(Some(match (text.split_first(), fd) {
            (None, _) => Self::End,
            (Some((b'P', pid)), Some(pidfd)) => {
                let pid = pid
                    .try_into()
                    .map(i32::from_le_bytes)
                    .ok()
                    .and_then(Pid::from_raw);
                Self::Cloned(pid.ok_or_else(malformed)?, pidfd)
            }
            (Some((b'C', _)), Some(fd)) => Self::Console(fd),
            (Some((b'N', number)), None) => Self::SeccompListener(
                number
                    .try_into()
                    .map(i32::from_le_bytes)
                    .map_err(|_| malformed())?,
            ),
            (Some((b'H', _)), None) => Self::RunHooks,
            (Some((b'R', _)), None) => Self::Ready,
            (Some((b'W', text)), None) => Self::Warning(String::from_utf8_lossy(text).into_owned()),
            (Some((b'F', text)), None) => Self::Failed(String::from_utf8_lossy(text).into_owned()),
            _ => return Err(malformed()),
        }))
    }
}

impl FromMaker {
    pub(crate) fn send(self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let kind = match self {
            Self::Go => b"g",
            Self::HooksDone => b"h",
            Self::ListenerTaken => b"l",
            Self::Recorded => b"r",
            Self::Start => b"s",
        };
        socket::send(socket, kind, &[])
    }

    /// Waits for this very message.
    ///
    /// # Errors
    /// `UnexpectedEof` when the maker is gone.
    pub(crate) fn expect(self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut buffer = [0; 8];
        // With read(2), which filters hold up even more seldom than recvmsg(2): see ToMaker::SeccompListener.
        let length = retry_on_intr(|| rustix::io::read(socket, &mut buffer))?;
        let got = match (length, buffer[0]) {
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (_, b'g') => Self::Go,
            (_, b'h') => Self::HooksDone,
            (_, b'l') => Self::ListenerTaken,
            (_, b'r') => Self::Recorded,
            (_, b's') => Self::Start,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        if got == self {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

fn send_text(socket: BorrowedFd<'_>, kind: char, text: &str) -> io::Result<()> {
    let mut message = format!("{kind}{text}").into_bytes();
    message.truncate(LONGEST);
    socket::send(socket, &message, &[])
}

/// Lets the maker take `listener` out of this process, and waits until its agent has it.
pub(crate) fn hand_over_listener(listener: OwnedFd, socket: BorrowedFd<'_>) -> io::Result<()> {
    ToMaker::SeccompListener(listener.as_raw_fd()).send(socket)?;
    FromMaker::ListenerTaken.expect(socket)
}

/// Waits until there is something to be received, or whatever else a descriptor of the maker stands for.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    retry_on_intr(|| poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None))?;
    Ok(())
}

/// Longest message in bytes; a chain of causes is cut there.
const LONGEST: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_heard_also_when_ours_were_not() {
        let (ours, theirs) = socket::message_pair().unwrap();
        FromMaker::Go.send(ours.as_fd()).unwrap();
        ToMaker::Failed("no such program".to_owned())
            .send(theirs.as_fd())
            .unwrap();
        drop(theirs);
        let first = ToMaker::receive(ours.as_fd()).unwrap();
        assert!(
            matches!(&first, Some(ToMaker::Failed(text)) if text == "no such program"),
            "{first:?}"
        );
        assert!(matches!(
            ToMaker::receive(ours.as_fd()).unwrap(),
            Some(ToMaker::End)
        ));
    }
}
