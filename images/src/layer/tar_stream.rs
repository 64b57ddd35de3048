//! Reads a tar stream block by block with bounded memory; the `tar` crate decodes the single header blocks.
//!
//! ustar, GNU (long names, base-256 numbers, sparse) and PAX (local and global records, sparse 0.0, 0.1, 1.0) archives. The
//! crate's own iterator is not used because it reads extension headers of any declared size into memory and does not let
//! a caller limit them.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::number::{id, is_blank, mtime};
use super::pax::Pax;

pub(super) const BLOCK: usize = 512;
/// More than PATH_MAX (4096) plus 64 KiB of extended attributes; Linux allows no more of either.
const EXTENSION_MAX: u64 = 1 << 20;
const PATH_MAX: usize = 4096;

/// Why a tar stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The source failed or ended early.
    #[error("read archive")]
    Read(#[from] io::Error),
    /// A header's checksum is wrong: not a tar archive, or damaged.
    #[error("entry after {after:?}: header checksum is wrong")]
    Checksum {
        /// The last good entry.
        after: String,
    },
    /// A header field cannot be decoded.
    #[error("entry {entry:?}: bad {field}")]
    Field {
        /// The entry.
        entry: String,
        /// Which field.
        field: &'static str,
    },
    /// A long name or PAX header is absurdly large.
    #[error("entry after {after:?}: extension header of {size} bytes (at most {EXTENSION_MAX})")]
    Extension {
        /// The last good entry.
        after: String,
        /// Declared size.
        size: u64,
    },
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Directory,
    Symlink,
    HardLink,
    Character,
    Block,
    Fifo,
    Other(u8),
}

/// A decoded entry; its data is read from the stream.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Size of the file.
    pub(crate) size: u64,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Offset and length of the parts that are stored, in order; `None` when the whole file is.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
}

impl Entry {
    pub(crate) fn name(&self) -> String {
        lossy(&self.path)
    }
}

/// A name for an error text: printable and of bounded length.
pub(crate) fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name.get(..256).unwrap_or(name)).into_owned()
}

/// The entries of a tar stream, one after the other. `Read` reads the current entry's stored data.
pub(crate) struct TarStream<R> {
    source: R,
    /// Stored bytes of the current entry that are still to be read.
    pub(super) remaining: u64,
    /// Zero bytes after them, up to the next block.
    padding: u64,
    /// Bytes of the source consumed so far.
    position: u64,
    global: Pax,
    last: String,
}

impl<R: Read> TarStream<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            remaining: 0,
            padding: 0,
            position: 0,
            global: Pax::default(),
            last: String::new(),
        }
    }

    /// Where the current entry's data starts in the source; only meaningful right after `next` and without sparse maps.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry, skipping what is left of the current one; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pax = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = match is_blank(&header.as_old().size) {
                true => 0,
                false => header.entry_size().map_err(|_| self.bad(&header, "size"))?,
            };
            match header.entry_type() {
                EntryType::XGlobalHeader => {
                    let bytes = self.extension(size)?;
                    let mut global = std::mem::take(&mut self.global);
                    global
                        .parse(&bytes)
                        .ok_or_else(|| self.bad(&header, "PAX record"))?;
                    pax.parse(&bytes).ok_or_else(|| self.bad(&header, "PAX record"))?;
                    self.global = global;
                }
                EntryType::XHeader => {
                    let bytes = self.extension(size)?;
                    pax.parse(&bytes).ok_or_else(|| self.bad(&header, "PAX record"))?;
                }
                EntryType::GNULongName => long_name = Some(until_nul(self.extension(size)?)),
                EntryType::GNULongLink => long_link = Some(until_nul(self.extension(size)?)),
                _ => {
                    let entry = self.entry(&header, size, &pax, long_name, long_link)?;
                    self.last = entry.name();
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads the rest of the source, at most `limit` bytes; archives are padded with zeros.
    pub(crate) fn drain(&mut self, limit: u64) -> Result<bool, TarError> {
        let copied = io::copy(
            &mut (&mut self.source).take(limit.saturating_add(1)),
            &mut io::sink(),
        )?;
        Ok(copied <= limit)
    }

    fn bad(&self, header: &Header, field: &'static str) -> TarError {
        TarError::Field {
            entry: lossy(&header.path_bytes()),
            field,
        }
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let rest = self.remaining.saturating_add(self.padding);
        if io::copy(&mut (&mut self.source).take(rest), &mut io::sink())? != rest {
            return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        self.position = self.position.saturating_add(rest);
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    fn start_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// The next header block; `None` at a zero block or at the end of the source.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        let Some(()) = self.block(header.as_mut_bytes())? else {
            return Ok(None);
        };
        let bytes = header.as_bytes();
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(|(at, b)| {
                if (148..156).contains(&at) {
                    u32::from(b' ')
                } else {
                    u32::from(*b)
                }
            })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(TarError::Checksum {
                after: self.last.clone(),
            });
        }
        Ok(Some(header))
    }

    /// Fills one block; `None` when the source ends right before it.
    pub(super) fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<Option<()>, TarError> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.position = self.position.saturating_add(BLOCK as u64);
        Ok(Some(()))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_MAX {
            return Err(TarError::Extension {
                after: self.last.clone(),
                size,
            });
        }
        self.start_data(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn entry(
        &mut self,
        header: &Header,
        stored: u64,
        pax: &Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let (path, link) = names(header, pax, long_name, long_link)?;
        let name = lossy(&path);
        let bad = |field| TarError::Field {
            entry: name.clone(),
            field,
        };
        let stored = pax
            .number("size")
            .map_err(|()| bad("PAX size"))?
            .unwrap_or(stored);
        let kind = kind(header.entry_type(), &path);
        // Only files carry data; some writers leave a size on links and directories, with nothing stored.
        let carries_data = matches!(kind, Kind::Regular | Kind::Other(_));
        self.start_data(if carries_data { stored } else { 0 });
        let (sparse, size) = self
            .sparse(header, pax, stored)
            .map_err(|error| error.unwrap_or_else(|| bad("sparse map")))?;
        let old = header.as_old();
        let mode = if is_blank(&old.mode) {
            0
        } else {
            header.mode().map_err(|_| bad("mode"))?
        };
        Ok(Entry {
            kind,
            mode: mode & 0o7777,
            uid: id(pax, "uid", header.uid(), &old.uid).ok_or_else(|| bad("uid"))?,
            gid: id(pax, "gid", header.gid(), &old.gid).ok_or_else(|| bad("gid"))?,
            mtime: mtime(header, pax).ok_or_else(|| bad("PAX mtime"))?,
            size,
            major: header.device_major().ok().flatten().unwrap_or(0),
            minor: header.device_minor().ok().flatten().unwrap_or(0),
            xattrs: pax.xattrs(),
            sparse,
            path,
            link,
        })
    }
}

impl<R: Read> Read for TarStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.remaining).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let Some(part) = buffer.get_mut(..want).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let count = self.source.read(part)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining = self.remaining.saturating_sub(count as u64);
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }
}

/// The name and the link target, from wherever the archive keeps them.
fn names(
    header: &Header,
    pax: &Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
) -> Result<(Vec<u8>, Vec<u8>), TarError> {
    let from_pax = |key| pax.get(key).map(<[u8]>::to_vec);
    let path = from_pax("GNU.sparse.name")
        .or_else(|| from_pax("path"))
        .or(long_name);
    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
    let own_link = || {
        header
            .link_name_bytes()
            .map(|link| link.into_owned())
            .unwrap_or_default()
    };
    let link = from_pax("linkpath").or(long_link).unwrap_or_else(own_link);
    let field = if path.len() > PATH_MAX || path.contains(&0) {
        "path"
    } else if link.len() > PATH_MAX || link.contains(&0) {
        "link name"
    } else {
        return Ok((path, link));
    };
    Err(TarError::Field {
        entry: lossy(&path),
        field,
    })
}

fn kind(entry_type: EntryType, path: &[u8]) -> Kind {
    match entry_type {
        // The oldest format has no type for directories.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::Regular,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char => Kind::Character,
        EntryType::Block => Kind::Block,
        EntryType::Fifo => Kind::Fifo,
        other => Kind::Other(other.as_byte()),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}
