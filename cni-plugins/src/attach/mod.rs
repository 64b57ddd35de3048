//! What every plugin that makes an interface needs, whatever the interface is.
//!
//! ```text
//!  mac          the MAC address somebody wants for the container's interface
//!  veth         the pair of links: one end in the container, the other on the host and named after its owner
//!  container    addresses and routes of the container's end
//!  masquerade   elements by which what the container sends out gets an address of the host
//!  result       what ADD answers
//!  check        whether all that is as ADD left it
//! ```

pub(crate) mod check;
pub(crate) mod container;
pub(crate) mod mac;
pub(crate) mod masquerade;
pub(crate) mod result;
pub(crate) mod veth;
