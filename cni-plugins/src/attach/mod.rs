//! What every plugin that makes an interface needs, whatever the interface is.

pub(crate) mod container;
pub(crate) mod veth;
