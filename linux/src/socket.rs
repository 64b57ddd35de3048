//! Unix sockets: descriptors as messages, and names longer than `sun_path`.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Most descriptors one message of ours carries.
pub const MAX_FDS: usize = 16;

/// Two connected sockets that keep message boundaries and report the end of the other side.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Sends one message with copies of these descriptors (at most [`MAX_FDS`]).
pub fn send(socket: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let flags = SendFlags::NOSIGNAL;
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(data)], &mut ancillary, flags)
    })?;
    if sent == data.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// One received message.
#[derive(Debug)]
pub struct Received {
    /// How many bytes arrived; 0 means the other side is gone.
    pub length: usize,
    /// The descriptors that came along, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Receives one message.
///
/// # Errors
/// `WouldBlock` when `wait` is false and there is none; `InvalidData` when it does not fit into `buffer`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], wait: bool) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC
        | if wait {
            RecvFlags::empty()
        } else {
            RecvFlags::DONTWAIT
        };
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)
    })?;
    let mut fds = Vec::new();
    for control in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = control {
            fds.extend(received);
        }
    }
    let cut = rustix::net::ReturnFlags::TRUNC | rustix::net::ReturnFlags::CTRUNC;
    if message.flags.intersects(cut) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Received {
        length: message.bytes,
        fds,
    })
}

/// Connects a stream socket to the one bound at `path`, of any length.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = stream_socket()?;
    with_short_name(path, |name| Ok(rustix::net::connect(&socket, name)?))?;
    Ok(socket)
}

/// Connects as [`connect`] does, but nonblocking, and without waiting for room in the listener's queue.
///
/// # Errors
/// `WouldBlock` when that is full (unix(7)).
pub fn connect_at_once(path: &Path) -> io::Result<OwnedFd> {
    let socket = stream_socket()?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    with_short_name(path, |name| Ok(rustix::net::connect(&socket, name)?))?;
    Ok(socket)
}

/// A listening stream socket bound at `path`, of any length. The file must not exist.
pub fn listen(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let socket = stream_socket()?;
    with_short_name(path, |name| Ok(rustix::net::bind(&socket, name)?))?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

fn stream_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Calls `then` with an address for `path`; where that is longer than the 107 bytes of `sun_path`, its directory is
/// opened and the address goes through `/proc/self/fd`.
fn with_short_name<T>(path: &Path, then: impl FnOnce(&SocketAddrUnix) -> io::Result<T>) -> io::Result<T> {
    use rustix::fs::{Mode, OFlags};
    if path.as_os_str().len() < 108 {
        return then(&SocketAddrUnix::new(path)?);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let dir = rustix::fs::open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let short = Path::new("/proc/self/fd")
        .join(dir.as_fd().as_raw_fd().to_string())
        .join(name);
    then(&SocketAddrUnix::new(&short)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn descriptors_travel_with_a_message() {
        let (left, right) = message_pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        send(left.as_fd(), b"take this", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 64];
        let mut received = receive(right.as_fd(), &mut buffer, true).unwrap();
        assert_eq!(&buffer[..received.length], b"take this");
        rustix::io::write(received.fds.remove(0), b"through").unwrap();
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(left);
        assert_eq!(receive(right.as_fd(), &mut buffer, true).unwrap().length, 0);
    }

    #[test]
    fn names_may_be_longer_than_sun_path() {
        let dir = std::env::temp_dir().join(format!("{:x<200}{}", "long", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("a.sock");
        let listener = listen(&path, 1).unwrap();
        let connected = connect(&path).unwrap();
        // One is in the queue already, and nobody accepts.
        let full = (0..3).find_map(|_| connect_at_once(&path).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop((listener, connected));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
