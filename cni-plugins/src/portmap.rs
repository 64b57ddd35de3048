//! placeholder
/// Error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortmapError {}
