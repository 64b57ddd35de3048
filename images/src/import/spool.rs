//! The archive in a file without a name, and where its entries are.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;

use super::ImportError;
use crate::Kind;
use crate::digest::{Digest, Hasher};
use crate::layer::tar_stream::{Kind as EntryKind, TarStream};
use crate::layer::{ChannelReader, Decompressor, TarError};
use crate::limits::Limits;
use crate::manifest::Descriptor;

const CHUNK: usize = 256 * 1024;
/// Chunks between receiver and writer.
const QUEUE: usize = 8;
/// Links from one entry to another, as `docker save` writes them for repeated layers.
const LINKS_MAX: usize = 8;

/// Why an archive cannot be received.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The sender's stream failed.
    #[error("receive")]
    Receive(#[source] io::Error),
    /// It cannot be written.
    #[error("spool")]
    Write(#[source] io::Error),
    /// Not a tar archive, or damaged.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Larger than allowed.
    #[error("more than {limit} bytes")]
    TooLarge {
        /// Limit in bytes, uncompressed.
        limit: u64,
    },
    /// Too many entries.
    #[error("more than {limit} entries")]
    Entries {
        /// The limit.
        limit: u64,
    },
    /// The sender's compression is damaged.
    #[error("decompress")]
    Decompress(#[source] io::Error),
    /// Shutdown.
    #[error("the store is shutting down")]
    ShuttingDown,
}

impl SpoolError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Receive(_) | Self::Tar(_) | Self::Decompress(_) => Kind::Corrupt,
            Self::TooLarge { .. } | Self::Entries { .. } => Kind::InvalidArgument,
            Self::Write(_) | Self::ShuttingDown => Kind::Internal,
        }
    }
}

/// A received archive.
pub(super) struct Spool {
    file: Arc<File>,
    entries: HashMap<String, Place>,
}

enum Place {
    Data {
        offset: u64,
        size: u64,
    },
    /// A symbolic or hard link to another entry.
    Link(String),
}

impl Spool {
    /// Receives an archive.
    pub(super) async fn fill(
        mut archive: impl AsyncRead + Unpin,
        directory: &Path,
        limits: &Limits,
    ) -> Result<Self, SpoolError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (directory, limits) = (directory.to_owned(), limits.clone());
        let writer =
            tokio::task::spawn_blocking(move || write(ChannelReader::new(receiver), &directory, &limits));
        let received = receive(&mut archive, &sender).await;
        if received.is_ok() {
            // Says that the end is the end, and not a sender that went away.
            let _ = sender.send(bytes_end()).await;
        }
        drop(sender);
        let written = writer.await.map_err(|_| SpoolError::ShuttingDown)?;
        received?;
        written
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Reads a small file.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImportError> {
        let (offset, size) = self.place(name)?;
        if size > limit {
            return Err(ImportError::TooLarge {
                file: name.to_owned(),
                size,
                limit,
            });
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(SpoolError::Write)?;
        Ok(bytes)
    }

    /// Reads a blob; at its end a wrong digest is an error if `verify` says what is expected.
    pub(super) fn reader(&self, name: &str, verify: Option<&Descriptor>) -> Result<Section, ImportError> {
        let (offset, size) = self.place(name)?;
        if let Some(told) = verify.and_then(|blob| blob.size).filter(|told| *told != size) {
            return Err(ImportError::Digest {
                file: name.to_owned(),
                found: format!("{size} bytes"),
                expected: format!("{told} bytes"),
            });
        }
        let verify = verify.map(|blob| (blob.digest.hasher(), blob.digest.clone()));
        Ok(Section {
            file: Arc::clone(&self.file),
            offset,
            remaining: size,
            verify,
        })
    }

    fn place(&self, name: &str) -> Result<(u64, u64), ImportError> {
        let mut at = name;
        for _ in 0..LINKS_MAX {
            match self.entries.get(at) {
                Some(Place::Data { offset, size }) => return Ok((*offset, *size)),
                Some(Place::Link(target)) => at = target,
                None => break,
            }
        }
        Err(ImportError::Missing(name.to_owned()))
    }
}

fn bytes_end() -> io::Result<hyper::body::Bytes> {
    Ok(hyper::body::Bytes::new())
}

async fn receive(
    archive: &mut (impl AsyncRead + Unpin),
    sender: &mpsc::Sender<io::Result<hyper::body::Bytes>>,
) -> Result<(), SpoolError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = archive.read(&mut buffer).await.map_err(SpoolError::Receive)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            return Ok(());
        };
        if sender
            .send(Ok(hyper::body::Bytes::copy_from_slice(chunk)))
            .await
            .is_err()
        {
            return Ok(()); // the writer stopped and says why
        }
    }
}

/// Writes the decompressed stream to a file without a name and lists its entries.
fn write(source: ChannelReader, directory: &Path, limits: &Limits) -> Result<Spool, SpoolError> {
    let mut file = nameless_file(directory).map_err(|errno| SpoolError::Write(errno.into()))?;
    let mut source = Decompressor::new(source).map_err(SpoolError::Decompress)?;
    let mut buffer = vec![0; CHUNK];
    let mut total = 0_u64;
    loop {
        let count = source.read(&mut buffer).map_err(SpoolError::Decompress)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        total = total.saturating_add(count as u64);
        if total > limits.archive_bytes {
            return Err(SpoolError::TooLarge {
                limit: limits.archive_bytes,
            });
        }
        io::Write::write_all(&mut file, chunk).map_err(SpoolError::Write)?;
    }
    let file = Arc::new(file);
    let entries = list(&file, total, limits.archive_entries)?;
    Ok(Spool { file, entries })
}

/// A file that vanishes with its descriptor.
fn nameless_file(directory: &Path) -> Result<File, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        // Not every filesystem can; then it has a name for a moment. open() empties this directory.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        other => return other.map(File::from),
    }
    let path = directory.join(format!("spool-{}", std::process::id()));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, mode)?;
    rustix::fs::unlink(&path)?;
    Ok(File::from(fd))
}

fn list(file: &Arc<File>, size: u64, limit: u64) -> Result<HashMap<String, Place>, SpoolError> {
    let section = Section {
        file: Arc::clone(file),
        offset: 0,
        remaining: size,
        verify: None,
    };
    let mut stream = TarStream::new(section);
    let mut entries = HashMap::new();
    let mut count = 0;
    while let Some(entry) = stream.next()? {
        count += 1;
        if count > limit {
            return Err(SpoolError::Entries { limit });
        }
        let name = normal(&entry.name());
        match entry.kind {
            EntryKind::Regular if entry.sparse.is_none() => {
                entries.insert(
                    name,
                    Place::Data {
                        offset: stream.position(),
                        size: entry.size,
                    },
                );
            }
            EntryKind::Symlink | EntryKind::HardLink => {
                let link = String::from_utf8_lossy(&entry.link).into_owned();
                let base = if entry.kind == EntryKind::Symlink {
                    name.rsplit_once('/')
                } else {
                    None
                };
                let target = base.map_or_else(|| link.clone(), |(base, _)| format!("{base}/{link}"));
                entries.insert(name, Place::Link(normal(&target)));
            }
            _ => {}
        }
    }
    Ok(entries)
}

/// A name without `.`, `..` and double slashes; only used as a key.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A part of the spool.
pub(super) struct Section {
    file: Arc<File>,
    offset: u64,
    remaining: u64,
    verify: Option<(Hasher, Digest)>,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.remaining).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let part = buffer.get_mut(..want).unwrap_or_default();
        if part.is_empty() {
            return match self
                .verify
                .take_if(|_| self.remaining == 0)
                .map(|(h, want)| (h.finish(), want))
            {
                Some((found, want)) if found != want => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("blob has digest {found}, the manifest says {want}"),
                )),
                _ => Ok(0),
            };
        }
        let count = self.file.read_at(part, self.offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        self.remaining -= count as u64;
        if let Some((hasher, _)) = &mut self.verify {
            hasher.update(part.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}
