//! The socket: sends requests, collects one answer per request.
//!
//! # Safety
//! The only unsafe call is `setsockopt(2)` for options that neither rustix nor nix know; each passes a pointer to a
//! local integer with its exact size.

#![allow(unsafe_code)]

use super::message::{Attributes, HEADER, Message};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;
const FLAG_DUMP: u16 = 0x300;
const NLMSGERR_ATTR_MSG: u16 = 1;
const SOL_NETLINK: i32 = 270;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;
const NETLINK_GET_STRICT_CHK: i32 = 12;
/// The kernel fills at most 32 KiB per answer of a dump.
const RECEIVE_BYTES: usize = 64 * 1024;
/// How often a dump that changed meanwhile is begun again.
const DUMP_ATTEMPTS: u32 = 20;

/// Which part of the kernel answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables and conntrack.
    Netfilter,
}

/// One request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{label}{}", .text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Refusal {
    /// Position in the batch.
    pub index: usize,
    /// What the request was to do.
    pub label: &'static str,
    /// The reason.
    #[source]
    pub errno: Errno,
    /// The kernel's own words, when it has any.
    pub text: Option<String>,
}

/// Talking to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// There is no socket.
    #[error("open a netlink socket")]
    Open(#[source] Errno),
    /// A request could not be sent.
    #[error("{label}: send the netlink request")]
    Send {
        /// What the request was to do.
        label: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// No answer came.
    #[error("receive the netlink answer")]
    Receive(#[source] Errno),
    /// The kernel refused a request.
    #[error(transparent)]
    Refused(Refusal),
    /// A name or list in the request is longer than a netlink attribute can be.
    #[error("{0}: a value is too long for netlink")]
    TooLong(&'static str),
    /// The answer is cut off or breaks the format.
    #[error("a netlink answer is malformed")]
    Malformed,
    /// The list changed faster than it could be read.
    #[error("{0}: the list kept changing while it was read")]
    Unstable(&'static str),
}

impl NetlinkError {
    /// The kernel's reason, when it refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(refusal) => Some(refusal.errno),
            Self::Open(_)
            | Self::Send { .. }
            | Self::Receive(_)
            | Self::TooLong(_)
            | Self::Malformed
            | Self::Unstable(_) => None,
        }
    }
}

/// A netlink socket, bound for its whole life to the network namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let protocol = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .map_err(NetlinkError::Open)?;
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK] {
            switch_on(fd.as_fd(), option).map_err(NetlinkError::Open)?;
        }
        // Route dumps filter in the kernel only with this; netfilter sockets have no use for it.
        if protocol == SockProtocol::NetlinkRoute {
            switch_on(fd.as_fd(), NETLINK_GET_STRICT_CHK).map_err(NetlinkError::Open)?;
        }
        Ok(Self {
            fd,
            sequence: 1,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Sends requests in one go; all are executed. The first refusal is the error.
    pub fn request(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        match self.request_each(messages)?.into_iter().next() {
            Some(refusal) => Err(NetlinkError::Refused(refusal)),
            None => Ok(()),
        }
    }

    /// Sends requests in one go and returns those that were refused.
    pub fn request_each(&mut self, messages: &[Message]) -> Result<Vec<Refusal>, NetlinkError> {
        let first = self.send(messages, FLAG_ACK)?;
        let mut refusals = Vec::new();
        let mut open = messages.len();
        while open > 0 {
            let answers = self.receive(first)?;
            for answer in answers {
                if let Some(index) = answer.verdict_of(first, messages.len()) {
                    open = open.saturating_sub(1);
                    refusals.extend(answer.refusal(index, messages[index].label()));
                }
            }
        }
        refusals.sort_by_key(|refusal| refusal.index);
        Ok(refusals)
    }

    /// Sends an nf_tables batch: the first and last message are its brackets, all or nothing is done.
    /// Only messages between them are answered, except that a refused opening bracket (another generation, no
    /// permission, no memory) is the only answer there is.
    pub fn transaction(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        let Some(inner) = messages.len().checked_sub(2) else {
            return Ok(());
        };
        let first = self.send_flagged(
            messages,
            |index| if index == 0 || index > inner { 0 } else { FLAG_ACK },
        )?;
        let mut refusals = Vec::new();
        let mut open = inner;
        while open > 0 {
            for answer in self.receive(first)? {
                let Some(index) = answer.verdict_of(first, messages.len()) else {
                    continue;
                };
                refusals.extend(answer.refusal(index, messages[index].label()));
                open = if index == 0 { 0 } else { open.saturating_sub(1) };
                if index == 0 {
                    break;
                }
            }
        }
        refusals.sort_by_key(|refusal| refusal.index);
        refusals
            .into_iter()
            .next()
            .map_or(Ok(()), |refusal| Err(NetlinkError::Refused(refusal)))
    }

    /// Asks for one thing and returns the bodies of what came (without netlink header).
    pub fn fetch(&mut self, message: &Message) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let first = self.send(std::slice::from_ref(message), FLAG_ACK)?;
        let mut found = Vec::new();
        loop {
            for answer in self.receive(first)? {
                if answer.verdict_of(first, 1).is_none() {
                    found.push(answer.body);
                } else if let Some(refusal) = answer.refusal(0, message.label()) {
                    return Err(NetlinkError::Refused(refusal));
                } else {
                    return Ok(found);
                }
            }
        }
    }

    /// Lists everything; begins again when the list changed while it was read.
    pub fn dump(&mut self, message: &Message) -> Result<Vec<Vec<u8>>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(found) = self.dump_once(message)? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Unstable(message.label()))
    }

    fn dump_once(&mut self, message: &Message) -> Result<Option<Vec<Vec<u8>>>, NetlinkError> {
        let first = self.send(std::slice::from_ref(message), FLAG_DUMP)?;
        let mut found = Vec::new();
        let mut interrupted = false;
        loop {
            for answer in self.receive(first)? {
                interrupted |= answer.flags & FLAG_DUMP_INTERRUPTED != 0;
                if answer.kind == NLMSG_DONE || answer.kind == NLMSG_ERROR {
                    if let Some(refusal) = answer.refusal(0, message.label()) {
                        return Err(NetlinkError::Refused(refusal));
                    }
                    return Ok((!interrupted).then_some(found));
                }
                found.push(answer.body);
            }
        }
    }

    fn send(&mut self, messages: &[Message], flags: u16) -> Result<u32, NetlinkError> {
        self.send_flagged(messages, |_| flags)
    }

    /// Returns the sequence number of the first message; the others follow it.
    fn send_flagged(
        &mut self,
        messages: &[Message],
        flags: impl Fn(usize) -> u16,
    ) -> Result<u32, NetlinkError> {
        let first = self.sequence;
        let mut batch = Vec::with_capacity(messages.len() * 256);
        for (index, message) in messages.iter().enumerate() {
            if message.oversized() {
                return Err(NetlinkError::TooLong(message.label()));
            }
            message.append_to(&mut batch, self.sequence, flags(index) | FLAG_REQUEST);
            self.sequence = self.sequence.wrapping_add(1);
        }
        let label = messages.first().map_or("send nothing", Message::label);
        socket::send(self.fd.as_raw_fd(), &batch, MsgFlags::empty())
            .map_err(|source| NetlinkError::Send { label, source })?;
        Ok(first)
    }

    /// The next answers to requests from sequence number `first` on; older ones are dropped.
    fn receive(&mut self, first: u32) -> Result<Vec<Answer>, NetlinkError> {
        let size = loop {
            match socket::recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other.map_err(NetlinkError::Receive)?,
            }
        };
        let mut rest = self.buffer.get(..size).unwrap_or_default();
        let mut answers = Vec::new();
        while !rest.is_empty() {
            let (answer, after) = Answer::split(rest).ok_or(NetlinkError::Malformed)?;
            rest = after;
            if answer.sequence.wrapping_sub(first) < u32::MAX / 2 {
                answers.push(answer);
            }
        }
        Ok(answers)
    }
}

/// Sets an option of netlink sockets to 1.
fn switch_on(fd: BorrowedFd<'_>, option: i32) -> Result<(), Errno> {
    let one: i32 = 1;
    let size = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: setsockopt reads `size` bytes from the pointer; it points to `one`, an i32 of exactly that size that
    // outlives the call, and the descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            SOL_NETLINK,
            option,
            std::ptr::from_ref(&one).cast(),
            size,
        )
    };
    Errno::result(result).map(drop)
}

/// One message of the kernel.
struct Answer {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: Vec<u8>,
}

impl Answer {
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?.to_vec();
        let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((
            Self {
                kind,
                flags,
                sequence,
                body,
            },
            after,
        ))
    }

    /// Which of `count` requests this acknowledges or refuses.
    fn verdict_of(&self, first: u32, count: usize) -> Option<usize> {
        let index = usize::try_from(self.sequence.wrapping_sub(first)).ok()?;
        (self.kind == NLMSG_ERROR && index < count).then_some(index)
    }

    fn refusal(&self, index: usize, label: &'static str) -> Option<Refusal> {
        let code = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        if code >= 0 {
            return None;
        }
        Some(Refusal {
            index,
            label,
            errno: Errno::from_raw(-code),
            text: self.words(),
        })
    }

    /// `struct nlmsgerr` is the code and the header of the request (the whole request unless capped), then attributes.
    fn words(&self) -> Option<String> {
        if self.kind != NLMSG_ERROR || self.flags & FLAG_ACK_TLVS == 0 {
            return None;
        }
        let echoed = u32::from_ne_bytes(self.body.get(4..8)?.try_into().ok()?);
        let skip = match self.flags & FLAG_CAPPED {
            0 => usize::try_from(echoed).ok()?.next_multiple_of(4),
            _ => HEADER,
        };
        Attributes(self.body.get(4 + skip..)?).text(NLMSGERR_ATTR_MSG)
    }
}
