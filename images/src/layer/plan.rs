//! Turns an archive entry into a checked step: pure, nothing is touched. What is hostile is refused here, by name.

use super::tar_stream::{Entry, Kind, lossy};
use super::walk::DEPTH_MAX;
use crate::limits::Limits;
use crate::whiteout::{Marker, marker};

/// Character devices a container may have, as major and minor. No other is made: a container sees its own /dev.
const DEVICES: [(u32, u32); 10] = [
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 1),
    (5, 2),
    (10, 200),
    (10, 229),
];

/// Why an entry is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The name leads out of the layer.
    #[error("its name leads out of the layer by '..'")]
    Traversal,
    /// A hard link's target leads out of the layer.
    #[error("hard link to {0:?}, which leads out of the layer by '..'")]
    LinkTraversal(String),
    /// A hard link's target is not in this layer.
    #[error("hard link to {0:?}, which is not a file of this layer")]
    LinkTarget(String),
    /// A symbolic link without a target.
    #[error("symbolic link has no target")]
    EmptyLink,
    /// A component of the name is not a directory.
    #[error("it lies in something that is not a directory")]
    NotADirectory,
    /// Symbolic links in a circle.
    #[error("too many symbolic links in its name")]
    Loop,
    /// Nested too deep.
    #[error("nested more than {} directories deep", DEPTH_MAX)]
    Depth,
    /// The name of a whiteout deletes nothing sensible.
    #[error("malformed whiteout")]
    Whiteout,
    /// More device nodes than allowed.
    #[error("more than {0} device nodes")]
    Devices(u64),
    /// Neither file, directory, link, device nor fifo.
    #[error("entry type {0:?} is not supported")]
    Type(char),
    /// Too large, declared or real.
    #[error("{size} bytes make the layer larger than {limit}")]
    LayerSize {
        /// Size of this entry.
        size: u64,
        /// Limit of the layer.
        limit: u64,
    },
    /// One file is too large.
    #[error("file of {size} bytes is larger than {limit}")]
    FileSize {
        /// Size of this file.
        size: u64,
        /// Limit.
        limit: u64,
    },
    /// Too many entries.
    #[error("layer has more than {0} entries")]
    Entries(u64),
    /// `/` must be a directory.
    #[error("the root of a layer must be a directory")]
    Root,
}

/// What an entry asks for, checked.
pub(super) enum Step {
    Nothing,
    /// Leave out what has no name and is no directory.
    Nameless,
    /// Leave out a device node.
    Device {
        path: Vec<u8>,
    },
    Root,
    /// Mark the parent opaque.
    Opaque {
        parent: Vec<u8>,
    },
    Delete {
        parent: Vec<u8>,
        name: Vec<u8>,
    },
    Make {
        parent: Vec<u8>,
        name: Vec<u8>,
        link: Vec<u8>,
    },
}

#[derive(Default)]
pub(super) struct Counts {
    entries: u64,
    devices: u64,
    bytes: u64,
}

/// Checks an entry against the limits and the rules, and splits its name.
pub(super) fn plan(entry: &Entry, counts: &mut Counts, limits: &Limits) -> Result<Step, Refusal> {
    counts.entries += 1;
    if counts.entries > limits.layer_entries {
        return Err(Refusal::Entries(limits.layer_entries));
    }
    let path = clean(&entry.path).ok_or(Refusal::Traversal)?;
    let Some(name) = path.last() else {
        return match entry.kind {
            Kind::Directory => Ok(Step::Root),
            Kind::Symlink | Kind::HardLink => Err(Refusal::Root),
            Kind::Regular | Kind::Character | Kind::Block | Kind::Fifo | Kind::Other(_) => Ok(Step::Nameless),
        };
    };
    let parent = path.get(..path.len() - 1).unwrap_or_default().join(&b'/');
    match marker(name) {
        Marker::None => {}
        Marker::Opaque => return Ok(Step::Opaque { parent }),
        Marker::Delete(deleted) => {
            return Ok(Step::Delete {
                parent,
                name: deleted.to_vec(),
            });
        }
        Marker::Ignored => return Ok(Step::Nothing),
        Marker::Malformed => return Err(Refusal::Whiteout),
    }
    let mut link = entry.link.clone();
    match entry.kind {
        Kind::Regular => check_size(entry, counts, limits)?,
        Kind::Directory | Kind::Fifo => {}
        Kind::Symlink if link.is_empty() => return Err(Refusal::EmptyLink),
        Kind::Symlink => {}
        Kind::HardLink => {
            let target = clean(&link).ok_or_else(|| Refusal::LinkTraversal(lossy(&link)))?;
            link = target.join(&b'/');
        }
        // Overlayfs's own form of a whiteout.
        Kind::Character if (entry.major, entry.minor) == (0, 0) => {
            let name = name.to_vec();
            return Ok(Step::Delete { parent, name });
        }
        Kind::Character if DEVICES.contains(&(entry.major, entry.minor)) => check_count(counts, limits)?,
        Kind::Character | Kind::Block => {
            let path = path.join(&b'/');
            return Ok(Step::Device { path });
        }
        Kind::Other(kind) => return Err(Refusal::Type(char::from(kind))),
    }
    Ok(Step::Make {
        parent,
        name: name.to_vec(),
        link,
    })
}

fn check_size(entry: &Entry, counts: &mut Counts, limits: &Limits) -> Result<(), Refusal> {
    if entry.size > limits.file_bytes {
        return Err(Refusal::FileSize {
            size: entry.size,
            limit: limits.file_bytes,
        });
    }
    let stored = entry
        .sparse
        .as_ref()
        .map_or(entry.size, |map| map.iter().map(|(_, length)| length).sum());
    counts.bytes = counts.bytes.saturating_add(stored);
    if counts.bytes > limits.layer_bytes {
        return Err(Refusal::LayerSize {
            size: stored,
            limit: limits.layer_bytes,
        });
    }
    Ok(())
}

fn check_count(counts: &mut Counts, limits: &Limits) -> Result<(), Refusal> {
    counts.devices += 1;
    if counts.devices > limits.layer_devices {
        Err(Refusal::Devices(limits.layer_devices))
    } else {
        Ok(())
    }
}

pub(super) enum XattrRule {
    Set,
    /// A label of the machine the image was built on, which every file may have; it means nothing here.
    Label,
    /// `trusted.overlay.redirect` and the like would make overlayfs look elsewhere; other namespaces the kernel does not have.
    LeaveOut,
}

pub(super) fn xattr_rule(name: &[u8]) -> XattrRule {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => XattrRule::Set,
        _ if name.starts_with(b"user.overlay.") => XattrRule::LeaveOut,
        _ if name.starts_with(b"user.") => XattrRule::Set,
        _ if name.starts_with(b"security.") || name.starts_with(b"system.") => XattrRule::Label,
        _ => XattrRule::LeaveOut,
    }
}

/// The components of a name below the layer's root, `.` and `..` resolved; `None` if it leads above.
fn clean(path: &[u8]) -> Option<Vec<&[u8]>> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()?),
            name => components.push(name),
        }
    }
    Some(components)
}
