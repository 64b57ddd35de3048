//! Whiteouts: `.wh.NAME` files in a layer archive (OCI image spec, layer.md), character devices 0:0 and
//! `trusted.overlay.opaque` directories in an overlayfs layer (kernel, Documentation/filesystems/overlayfs.rst).

use rustix::fs::{FileType, Stat};

/// Set to `y` on a directory that hides its lower namesakes.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

const PREFIX: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an archive entry's last name component means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Marker<'a> {
    /// An ordinary entry.
    None,
    /// The directory it lies in is opaque.
    Opaque,
    /// This name is deleted.
    Delete(&'a [u8]),
    /// aufs bookkeeping without meaning for other filesystems.
    Ignored,
    /// `.wh.` with nothing, `.` or `..` behind.
    Malformed,
}

/// Reads the marker in `name`.
pub(crate) fn marker(name: &[u8]) -> Marker<'_> {
    if name == OPAQUE {
        return Marker::Opaque;
    }
    if name.starts_with(META) {
        return Marker::Ignored;
    }
    match name.strip_prefix(PREFIX) {
        None => Marker::None,
        Some(b"" | b"." | b"..") => Marker::Malformed,
        Some(deleted) => Marker::Delete(deleted),
    }
}

/// Whether overlayfs takes this file for a whiteout.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_apart() {
        assert_eq!(marker(b"file"), Marker::None);
        assert_eq!(marker(b".wh.file"), Marker::Delete(b"file"));
        assert_eq!(marker(b".wh..hidden"), Marker::Delete(b".hidden"));
        assert_eq!(marker(b".wh..wh..opq"), Marker::Opaque);
        assert_eq!(marker(b".wh..wh.plnk"), Marker::Ignored);
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(marker(bad), Marker::Malformed, "{bad:?}");
        }
    }
}
