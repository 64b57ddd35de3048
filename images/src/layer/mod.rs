//! From a layer's blob to a directory that overlayfs can use as a lower layer.
//!
//! ```text
//!  compressed bytes -> gzip | zstd | none -> hasher (diff_id) -> TarStream -> Applier -> directory
//! ```
//! Everything streams: nothing but the directory is written. The directory is only recorded when all digests fit; until then its
//! owner removes it again.

mod apply;
mod attributes;
mod channel;
mod decompress;
mod failure;
mod notes;
mod number;
mod parents;
mod pax;
mod plan;
mod sparse;
pub(crate) mod tar_stream;
mod walk;

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

pub(crate) use channel::ChannelReader;
pub(crate) use decompress::Decompressor;
pub use failure::ApplyError;
pub(crate) use parents::adopt_parents;
pub use plan::Refusal;
use serde::{Deserialize, Serialize};
pub use tar_stream::TarError;
use tar_stream::TarStream;

use crate::digest::{Digest, Hasher};
use crate::limits::Limits;

/// Mode and owner of an image's `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootAttributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Default for RootAttributes {
    fn default() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
        }
    }
}

/// What unpacking a layer found out about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    /// On disk, in whole blocks.
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// The archive's own entry for `/`, if it has one.
    pub(crate) root: Option<RootAttributes>,
    /// `/` itself is opaque: nothing below this layer shows. Overlayfs has no mark for that.
    pub(crate) opaque_root: bool,
    /// Directories made because an entry lies in them, without an entry of their own: their attributes are those of the
    /// lower layers.
    pub(crate) implied: Vec<Vec<u8>>,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive's content is refused, or writing it failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The stream failed.
    #[error("read layer")]
    Read(#[from] io::Error),
    /// The uncompressed content is not what the configuration says.
    #[error("uncompressed layer has digest {found}, the image configuration says {expected}")]
    DiffId {
        /// rootfs.diff_ids.
        expected: Digest,
        /// Computed.
        found: Digest,
    },
    /// More bytes after the end of the archive than allowed.
    #[error("more than {limit} bytes follow the end of the archive")]
    Trailing {
        /// Limit in bytes.
        limit: u64,
    },
}

/// Unpacks `compressed` into the empty directory `root`.
pub(crate) fn unpack(
    compressed: impl Read,
    root: BorrowedFd<'_>,
    diff_id: &Digest,
    limits: &Limits,
) -> Result<Content, UnpackError> {
    let mut hashed = Hashed {
        source: Decompressor::new(compressed)?,
        hasher: diff_id.hasher(),
    };
    let mut stream = TarStream::new(&mut hashed);
    let mut notes = notes::Notes::default();
    let applied = apply::apply(&mut stream, root, limits, &mut notes);
    notes.log(diff_id);
    let content = applied?;
    let limit = limits.trailing_bytes;
    if !stream.drain(limit).map_err(ApplyError::from)? {
        return Err(UnpackError::Trailing { limit });
    }
    let found = hashed.hasher.finish();
    if found != *diff_id {
        return Err(UnpackError::DiffId {
            expected: diff_id.clone(),
            found,
        });
    }
    Ok(content)
}

/// Hashes what passes through.
struct Hashed<R> {
    source: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

impl UnpackError {
    pub(crate) fn kind(&self) -> crate::Kind {
        match self {
            Self::Apply(ApplyError::Call { .. }) => crate::Kind::Internal,
            Self::Apply(ApplyError::Refused { .. }) => crate::Kind::InvalidArgument,
            Self::Apply(ApplyError::Tar(_) | ApplyError::Copy { .. })
            | Self::Read(_)
            | Self::DiffId { .. }
            | Self::Trailing { .. } => crate::Kind::Corrupt,
        }
    }
}
