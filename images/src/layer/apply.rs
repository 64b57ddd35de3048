//! Applies a layer archive to a directory.
//!
//! Every entry is first planned (`plan`: pure, refuses what is hostile by name), then done beneath the layer's directory by descriptor.
//! An entry that appears twice replaces the first one, as every unpacker does; it never writes through it. A leading `/` is
//! dropped (common builders write it); `..` is refused. Attributes of directories are set last, since filling a directory changes
//! its times.

mod files;

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::attributes::{set_attributes, set_node_attributes, times};
use super::failure::{ApplyError, call, refused, walked};
use super::notes::Notes;
use super::plan::{Counts, Step, plan};
use super::tar_stream::{Entry, Kind, TarStream, lossy};
use super::walk::{self, open_directory, remove_tree};
use super::{Content, RootAttributes};
use crate::limits::Limits;
use crate::whiteout::is_whiteout;

const COPY_BUFFER: usize = 128 * 1024;
const DISK_BLOCK: u64 = 4096;

/// Applies all of `stream` to the empty directory `root`.
pub(crate) fn apply<R: Read>(
    stream: &mut TarStream<R>,
    root: BorrowedFd<'_>,
    limits: &Limits,
    notes: &mut Notes,
) -> Result<Content, ApplyError> {
    let mut applier = Applier {
        root,
        content: Content {
            bytes: DISK_BLOCK,
            inodes: 1,
            ..Content::default()
        },
        counts: Counts::default(),
        implied: BTreeSet::new(),
        directories: Vec::new(),
        parent: None,
        left_out: BTreeSet::new(),
        notes,
        buffer: vec![0; COPY_BUFFER],
    };
    while let Some(entry) = stream.next()? {
        let step = plan(&entry, &mut applier.counts, limits).map_err(|r| refused(&entry, r))?;
        applier.step(&entry, step, stream)?;
    }
    applier.finish()
}

struct Applier<'a> {
    root: BorrowedFd<'a>,
    content: Content,
    counts: Counts,
    implied: BTreeSet<Vec<u8>>,
    /// Directories of the archive with their modification times.
    directories: Vec<(Vec<u8>, (i64, u32))>,
    /// The directory of the last entry, since neighbours follow each other.
    parent: Option<(Vec<u8>, walk::Parent)>,
    /// Names of device nodes that were not made; what links to them is not made either.
    left_out: BTreeSet<Vec<u8>>,
    notes: &'a mut Notes,
    buffer: Vec<u8>,
}

impl Applier<'_> {
    fn step<R: Read>(
        &mut self,
        entry: &Entry,
        step: Step,
        data: &mut TarStream<R>,
    ) -> Result<(), ApplyError> {
        match step {
            Step::Nothing => Ok(()),
            Step::Nameless => {
                self.notes.add("entries without a name", || entry.name());
                Ok(())
            }
            Step::Device { path } => {
                self.notes.add("device nodes", || device(entry));
                self.left_out.insert(path);
                Ok(())
            }
            Step::Root => self.root_attributes(entry),
            Step::Opaque { parent } if parent.is_empty() => {
                self.content.opaque_root = true;
                Ok(())
            }
            Step::Opaque { parent } => {
                let (fd, _) = self.parent(entry, &parent)?;
                walk::set_opaque(fd.as_fd()).map_err(call(entry, "setxattr"))
            }
            Step::Delete { parent, name } => {
                let (fd, _) = self.parent(entry, &parent)?;
                self.delete(entry, &fd, &name)
            }
            Step::Make { parent, name, link } => {
                let (fd, path) = self.parent(entry, &parent)?;
                let made = self.make(entry, &fd, &path, &name, &link, data);
                self.parent = Some((parent, walk::Parent { fd, path }));
                made
            }
        }
    }

    fn root_attributes(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        set_attributes(entry, self.root, self.notes)?;
        self.directories.push((Vec::new(), entry.mtime));
        self.content.root = Some(RootAttributes {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
        });
        Ok(())
    }

    /// Opens the directory an entry lies in.
    fn parent(&mut self, entry: &Entry, parent: &[u8]) -> Result<(OwnedFd, Vec<u8>), ApplyError> {
        if let Some((name, open)) = self.parent.take()
            && name == parent
        {
            return Ok((open.fd, open.path));
        }
        let before = self.implied.len();
        let open = open_directory(self.root, parent, Some(&mut self.implied)).map_err(walked(entry))?;
        let made = (self.implied.len() - before) as u64;
        self.count(made, made * DISK_BLOCK);
        Ok((open.fd, open.path))
    }

    fn count(&mut self, inodes: u64, bytes: u64) {
        self.content.inodes += inodes;
        self.content.bytes = self.content.bytes.saturating_add(bytes);
    }

    /// A whiteout only means the lower layers: what this layer itself holds under the name stays, but hides them.
    fn delete(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), ApplyError> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(call(entry, "mknod"))?;
                self.count(1, 0);
                Ok(())
            }
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let fd = open_child(parent, name).map_err(call(entry, "open"))?;
                walk::set_opaque(fd.as_fd()).map_err(call(entry, "setxattr"))
            }
            Ok(_) => Ok(()),
            Err(errno) => Err(call(entry, "stat")(errno)),
        }
    }

    fn make<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        path: &[u8],
        name: &[u8],
        link: &[u8],
        data: &mut TarStream<R>,
    ) -> Result<(), ApplyError> {
        let full = if path.is_empty() {
            name.to_vec()
        } else {
            [path, name].join(&b'/')
        };
        if entry.kind == Kind::HardLink {
            return self.hard_link(entry, parent, &full, name, link);
        }
        let deleted = self.replace(entry, parent, &full, name)?;
        match entry.kind {
            Kind::Directory => return self.directory(entry, parent, full, name, deleted),
            Kind::Regular => self.regular(entry, parent, name, data)?,
            Kind::Symlink => {
                rustix::fs::symlinkat(link, parent, name).map_err(call(entry, "symlink"))?;
                set_node_attributes(entry, parent, name)?;
            }
            _ => {
                let kind = if entry.kind == Kind::Fifo {
                    FileType::Fifo
                } else {
                    FileType::CharacterDevice
                };
                let device = rustix::fs::makedev(entry.major, entry.minor);
                let device = if entry.kind == Kind::Fifo { 0 } else { device };
                rustix::fs::mknodat(parent, name, kind, Mode::RUSR, device).map_err(call(entry, "mknod"))?;
                set_node_attributes(entry, parent, name)?;
            }
        }
        self.count(1, 0);
        Ok(())
    }

    /// Makes room for an entry. Returns whether the name was a whiteout of this layer.
    fn replace(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        full: &[u8],
        name: &[u8],
    ) -> Result<bool, ApplyError> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(call(entry, "stat"))?,
        };
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if directory && entry.kind == Kind::Directory {
            return Ok(false);
        }
        if directory {
            remove_tree(parent, name).map_err(call(entry, "remove"))?;
            let inside = [full, b"/"].concat();
            self.implied
                .retain(|path| path != full && !path.starts_with(&inside));
        } else {
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(call(entry, "unlink"))?;
        }
        Ok(is_whiteout(&stat))
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        full: Vec<u8>,
        name: &[u8],
        deleted: bool,
    ) -> Result<(), ApplyError> {
        match walk::make(parent.as_fd(), name, false) {
            Ok(()) => self.count(1, DISK_BLOCK),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(call(entry, "mkdir")(errno)),
        }
        let fd = open_child(parent, name).map_err(call(entry, "open"))?;
        if deleted {
            walk::set_opaque(fd.as_fd()).map_err(call(entry, "setxattr"))?;
        }
        set_attributes(entry, fd.as_fd(), self.notes)?;
        self.implied.remove(&full);
        self.directories.push((full, entry.mtime));
        Ok(())
    }

    /// Times of directories, now that nothing changes them any more.
    fn finish(mut self) -> Result<Content, ApplyError> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        while let Some((path, mtime)) = self.directories.pop() {
            let name = if path.is_empty() { b".".as_slice() } else { &path };
            let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let failed = |call, errno| ApplyError::Call {
                entry: lossy(&path),
                call,
                errno,
            };
            match rustix::fs::openat2(self.root, name, open, Mode::empty(), resolve) {
                Ok(fd) => {
                    let set = rustix::fs::futimens(&fd, &times(mtime));
                    set.map_err(|errno| failed("utimens", errno))?;
                }
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(failed("open", errno)),
            }
        }
        self.content.implied = self.implied.into_iter().collect();
        Ok(self.content)
    }
}

fn device(entry: &Entry) -> String {
    let kind = if entry.kind == Kind::Block { 'b' } else { 'c' };
    format!("{} ({kind} {}:{})", entry.name(), entry.major, entry.minor)
}

fn open_child(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}
