//! Looks names up through the layers of an image as overlayfs would, without mounting: whiteouts, opaque directories and
//! symbolic links (which stay inside the image) are followed here.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::whiteout::{OPAQUE_XATTR, is_whiteout};

const LINKS_MAX: usize = 40;
/// Large enough for any passwd or group file, small enough for memory.
const FILE_MAX: u64 = 4 << 20;

/// Why a file of an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Too many symbolic links.
    #[error("{path:?} in the image: too many symbolic links")]
    Loop {
        /// The path asked for.
        path: String,
    },
    /// A directory, device or the like.
    #[error("{path:?} in the image is not a regular file")]
    NotAFile {
        /// The path asked for.
        path: String,
    },
    /// Larger than what is read into memory.
    #[error("{path:?} in the image is larger than {FILE_MAX} bytes")]
    TooLarge {
        /// The path asked for.
        path: String,
    },
    /// A layer is damaged.
    #[error("{path:?} in the image cannot be read")]
    Read {
        /// The path asked for.
        path: String,
        /// The error.
        source: std::io::Error,
    },
}

/// What a name leads to.
pub(crate) enum Found {
    /// The directory's parts in the layers, uppermost first.
    Directory(Vec<OwnedFd>),
    /// Anything else: its directory, its name there.
    Other {
        parent: OwnedFd,
        name: Vec<u8>,
        stat: Stat,
    },
    Absent,
}

/// The layers of an image seen as one tree.
pub(crate) struct Merged {
    /// Uppermost first.
    roots: Vec<OwnedFd>,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Merged {
    /// Opens the layers, uppermost first.
    pub(crate) fn open<'a>(layers: impl Iterator<Item = std::path::PathBuf> + 'a) -> Result<Self, Errno> {
        let open =
            |path: std::path::PathBuf| rustix::fs::openat(rustix::fs::CWD, &path, DIRECTORY, Mode::empty());
        Ok(Self {
            roots: layers.map(open).collect::<Result<_, _>>()?,
        })
    }

    /// Looks `path` up, following links. Returns the path without links beside what was found.
    pub(crate) fn find(&self, path: &[u8]) -> Result<(Vec<u8>, Found), Errno> {
        let mut stack: Vec<(Vec<u8>, Vec<OwnedFd>)> = vec![(Vec::new(), self.roots()?)];
        let mut rest: VecDeque<Vec<u8>> = components(path);
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                stack.truncate(stack.len().saturating_sub(1).max(1));
                continue;
            }
            let here = stack
                .last()
                .map(|(_, parts)| parts.as_slice())
                .unwrap_or_default();
            match child(here, &name)? {
                Found::Directory(parts) => stack.push((name, parts)),
                Found::Other {
                    parent,
                    name: own,
                    stat,
                } if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&parent, own.as_slice(), Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    let mut spliced = components(&target);
                    spliced.append(&mut rest);
                    rest = spliced;
                }
                other if rest.is_empty() => return Ok((join(&stack, Some(&name)), other)),
                _ => return Ok((join(&stack, Some(&name)), Found::Absent)),
            }
        }
        let path = join(&stack, None);
        Ok((
            path,
            stack
                .pop()
                .map_or(Found::Absent, |(_, parts)| Found::Directory(parts)),
        ))
    }

    fn roots(&self) -> Result<Vec<OwnedFd>, Errno> {
        self.roots
            .iter()
            .map(|fd| rustix::fs::openat(fd, ".", DIRECTORY, Mode::empty()))
            .collect()
    }

    /// Reads a small regular file; `None` when there is none.
    pub(crate) fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, LookupError> {
        use std::os::unix::ffi::OsStrExt as _;
        let name = || path.display().to_string();
        let failed = |errno: Errno| match errno {
            Errno::LOOP => LookupError::Loop { path: name() },
            other => LookupError::Read {
                path: name(),
                source: other.into(),
            },
        };
        let (parent, own, stat) = match self.find(path.as_os_str().as_bytes()).map_err(failed)?.1 {
            Found::Absent => return Ok(None),
            Found::Directory(_) => return Err(LookupError::NotAFile { path: name() }),
            Found::Other { parent, name, stat } => (parent, name, stat),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(LookupError::NotAFile { path: name() });
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, own.as_slice(), flags, Mode::empty()).map_err(failed)?;
        let mut bytes = Vec::new();
        let mut file = std::fs::File::from(fd).take(FILE_MAX + 1);
        file.read_to_end(&mut bytes)
            .map_err(|source| LookupError::Read { path: name(), source })?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(LookupError::TooLarge { path: name() });
        }
        Ok(Some(bytes))
    }
}

/// One name in a merged directory, as overlayfs resolves it.
fn child(parts: &[OwnedFd], name: &[u8]) -> Result<Found, Errno> {
    let mut directories = Vec::new();
    for part in parts {
        let stat = match rustix::fs::statat(part, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let fd = rustix::fs::openat(part, name, DIRECTORY, Mode::empty())?;
            let opaque = is_opaque(&fd);
            directories.push(fd);
            if opaque {
                break;
            }
        } else if directories.is_empty() && !is_whiteout(&stat) {
            let parent = part
                .as_fd()
                .try_clone_to_owned()
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            return Ok(Found::Other {
                parent,
                name: name.to_vec(),
                stat,
            });
        } else {
            // A whiteout, or a file below a directory: nothing further down shows.
            break;
        }
    }
    Ok(if directories.is_empty() {
        Found::Absent
    } else {
        Found::Directory(directories)
    })
}

fn is_opaque(fd: &OwnedFd) -> bool {
    let mut value = [0_u8; 1];
    rustix::fs::fgetxattr(fd, OPAQUE_XATTR, &mut value).is_ok_and(|length| value.get(..length) == Some(b"y"))
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|b| *b == b'/')
        .filter(|c| !c.is_empty() && *c != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

fn join(stack: &[(Vec<u8>, Vec<OwnedFd>)], last: Option<&[u8]>) -> Vec<u8> {
    let names: Vec<&[u8]> = stack
        .iter()
        .skip(1)
        .map(|(name, _)| name.as_slice())
        .chain(last)
        .collect();
    names.join(&b'/')
}
