//! The protocol between the daemon and the shim of one pod: the messages and service of `proto/pod.proto`, the socket
//! they travel on, and a client with typed errors.
//!
//! The drawing of who asks what, and what a closed connection means, is at the top of `proto/pod.proto`.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod socket;

pub use client::{Client, Exec, RpcError};
pub use socket::{BindError, ConnectError, bind};

/// The status codes of [`RpcError::Status`].
pub use ttrpc::Code;

pub use generated::{pod, pod_ttrpc};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}
