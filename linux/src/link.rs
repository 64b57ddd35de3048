//! Network links by name, in the calling thread's network namespace.

use crate::netlink::route::link::{self, Change, Which};
use crate::netlink::{NetlinkError, Protocol, Socket};
use nix::errno::Errno;

/// Sets the loopback interface up: a new network namespace has it down.
pub fn lo_up() -> Result<(), NetlinkError> {
    set_up("lo")
}

/// Sets a link up.
pub fn set_up(name: &str) -> Result<(), NetlinkError> {
    let up = Change {
        up: Some(true),
        ..Change::default()
    };
    Socket::open(Protocol::Route)?.request(&[link::change(Which::Name(name), &up)])
}

/// Whether a link of this name exists.
pub fn exists(name: &str) -> Result<bool, NetlinkError> {
    Ok(link::find(&mut Socket::open(Protocol::Route)?, Which::Name(name))?.is_some())
}

/// Deletes a link; it is not an error when there is none. Takes the kernel 10 to 20 ms for a veth (a grace period).
pub fn delete(name: &str) -> Result<(), NetlinkError> {
    match Socket::open(Protocol::Route)?.request(&[link::delete(Which::Name(name))]) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        other => other,
    }
}
