//! Regular files: their data, sparse or whole, and their further names.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::attributes::{set_attributes, times};
use super::super::failure::{ApplyError, call, refused, walked};
use super::super::plan::Refusal;
use super::super::tar_stream::{Entry, TarStream, lossy};
use super::super::walk::{WalkError, open_directory};
use super::{Applier, DISK_BLOCK};
use crate::whiteout::is_whiteout;

impl Applier<'_> {
    pub(super) fn regular<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        data: &mut TarStream<R>,
    ) -> Result<(), ApplyError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(call(entry, "create"))?;
        let mut file = std::fs::File::from(fd);
        let whole = [(0, entry.size)];
        for (offset, length) in entry.sparse.as_deref().unwrap_or(&whole) {
            if entry.sparse.is_some() {
                rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(*offset)).map_err(call(entry, "seek"))?;
            }
            let blocks = length.div_ceil(DISK_BLOCK).saturating_mul(DISK_BLOCK);
            self.count(0, blocks);
            self.copy(data, &mut file, *length)
                .map_err(|source| ApplyError::Copy {
                    entry: entry.name(),
                    source,
                })?;
        }
        if entry.sparse.is_some() {
            rustix::fs::ftruncate(&file, entry.size).map_err(call(entry, "truncate"))?;
        }
        set_attributes(entry, file.as_fd(), self.notes)?;
        rustix::fs::futimens(&file, &times(entry.mtime)).map_err(call(entry, "utimens"))
    }

    fn copy(&mut self, data: &mut impl Read, file: &mut std::fs::File, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let want = usize::try_from(length).map_or(self.buffer.len(), |l| l.min(self.buffer.len()));
            let part = self.buffer.get_mut(..want).unwrap_or_default();
            data.read_exact(part)?;
            file.write_all(part)?;
            length -= want as u64;
        }
        Ok(())
    }

    pub(super) fn hard_link(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        full: &[u8],
        name: &[u8],
        link: &[u8],
    ) -> Result<(), ApplyError> {
        if self.left_out.contains(link) {
            self.notes.add("links to device nodes", || entry.name());
            self.left_out.insert(full.to_vec());
            return Ok(());
        }
        let outside = || refused(entry, Refusal::LinkTarget(lossy(link)));
        let (directory, target) = match link.iter().rposition(|b| *b == b'/') {
            Some(slash) => (
                link.get(..slash).unwrap_or_default(),
                link.get(slash + 1..).unwrap_or_default(),
            ),
            None => (&b""[..], link),
        };
        let source = match open_directory(self.root, directory, None) {
            Err(WalkError::Errno(Errno::NOENT) | WalkError::NotADirectory) => return Err(outside()),
            other => other.map_err(walked(entry))?,
        };
        let stat = |fd: &OwnedFd, name: &[u8]| rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let wanted = match stat(&source.fd, target) {
            Err(Errno::NOENT) => return Err(outside()),
            other => other.map_err(call(entry, "stat"))?,
        };
        if FileType::from_raw_mode(wanted.st_mode) == FileType::Directory || is_whiteout(&wanted) {
            return Err(outside());
        }
        if stat(parent, name).is_ok_and(|own| (own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino)) {
            return Ok(());
        }
        self.replace(entry, parent, full, name)?;
        rustix::fs::linkat(&source.fd, target, parent, name, AtFlags::empty()).map_err(call(entry, "link"))
    }
}
