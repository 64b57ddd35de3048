//! From an image reference to a root filesystem.
//!
//! ```text
//!  Reference -> registry (hosts.toml, tokens) -> manifest -> blobs -> layers/N  \
//!  archive (OCI layout or docker save) -> spool -> manifest -> blobs -> layers/N -> Image -> lower() for overlayfs
//! ```
//! The store never mounts anything: it hands out the names of layer directories. Everything that comes from outside is
//! bounded (`Limits`), checked before it is used, and verified by digest while it streams.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chain;
mod configuration;
mod digest;
mod form;
mod image;
mod import;
mod layer;
mod limits;
mod lookup;
mod manifest;
mod platform;
mod pull;
mod reference;
mod registry;
mod store;
pub mod user;
mod whiteout;

pub use configuration::{Configuration, ProcessConfiguration, RootFilesystem};
pub use coracle_linux::tree::Usage;
pub use digest::{Digest, DigestError};
pub use image::{Image, ImageUser, LayerNumber};
pub use import::{ImportError, SpoolError};
pub use layer::{ApplyError, Refusal, RootAttributes, TarError, UnpackError};
pub use limits::Limits;
pub use lookup::LookupError;
pub use manifest::ManifestError;
pub use platform::Platform;
pub use pull::PullError;
pub use reference::{Reference, ReferenceError};
pub use registry::{Auth, AuthError, HostsError, ProxyError, RegistryError, TlsError};
pub use store::{OpenError, Options, RecordsError, Store, StoreError};

/// What kind of failure an error is, for the protocol at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request or the image is wrong; the same again fails again.
    InvalidArgument,
    /// There is no such image.
    NotFound,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry cannot be reached or fails; may work later.
    Unavailable,
    /// What was sent is damaged: a wrong digest, a broken archive.
    Corrupt,
    /// This machine failed.
    Internal,
}
