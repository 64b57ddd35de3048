//! Netlink: the kernel's message protocol for links, addresses, routes and nf_tables.
//!
//! ```text
//!  Message (header, family header, attributes)  --one sendmsg-->  kernel
//!  Socket  <--acknowledgement or refusal, one per message, with the kernel's own words (NLMSGERR_ATTR_MSG)--
//! ```
//!
//! Everything is synchronous: the kernel answers a request before `sendmsg` returns, so there is nothing to wait for.
//! Several messages travel in one `sendmsg`; the kernel executes them in order and answers each.
//! Sources: netlink(7), rtnetlink(7), include/uapi/linux/netlink.h.

pub mod conntrack;
mod message;
pub mod nftables;
pub mod route;
mod socket;

pub use message::{Attributes, Message};
pub use socket::{NetlinkError, Protocol, Refusal, Socket};
