//! The file behind the store: frames appended to one file, so that a record costs one write and, where it must outlive
//! a power cut, one fdatasync.
//!
//! ```text
//!   "coracle-records 1\n"  | length u32 | crc32 u32 | payload |  | length | crc32 | payload | ...
//! ```
//!
//! What write(2) has taken survives the death of the daemon; what fdatasync(2) has confirmed survives the machine's.
//! A torn last frame (power cut in the middle of a write) ends the file: it is cut off at the next start.
//!
//! The file is kept longer than its frames, by zeros that are really written: a frame then changes no metadata, and its
//! sync does not have to commit the file system's journal as well.

mod rewrite;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const MAGIC: &[u8] = b"coracle-records 1\n";
const FRAME_HEADER: usize = 8;
/// How far the zeros reach beyond what is needed.
const AHEAD: usize = 128 << 10;
/// Far above any record: a length beyond it is damage, not data.
const MAX_PAYLOAD: usize = 64 << 20;

/// What went wrong with the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{}: not a record file of this version", .0.display())]
    Magic(PathBuf),
    #[error("a record of {0} bytes is too large")]
    TooLarge(usize),
}

/// An open record file.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    tail: Mutex<Tail>,
    /// Whether something unreadable was cut off when it was opened.
    was_cut: bool,
    /// Locked while a sync runs, so that whoever waits for it shares it.
    synced: Mutex<Synced>,
}

/// What is on disk.
#[derive(Debug)]
struct Synced {
    position: Position,
    /// Whether the directory names the file that is in use.
    is_named: bool,
}

#[derive(Debug)]
struct Tail {
    file: Arc<File>,
    position: Position,
    /// End of the zeros.
    allocated: u64,
}

/// A place in the history of the log: a generation of the file and an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    generation: u64,
    offset: u64,
}

impl Log {
    /// Opens or makes the file and returns every payload in order.
    pub(crate) fn open(path: &Path) -> Result<(Log, Vec<Vec<u8>>), LogError> {
        let io = |action| {
            move |source| LogError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open"))?;
        // Of a rewrite that was cut off.
        let _ = std::fs::remove_file(rewrite::new_path(path));
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(io("read"))?;
        // Made and not yet written when the power went.
        if MAGIC.starts_with(&content) && content.len() < MAGIC.len() {
            content = MAGIC.to_vec();
            file.write_all_at(MAGIC, 0).map_err(io("write"))?;
            file.sync_all().map_err(io("sync"))?;
            sync_parent(path)?;
        }
        let frames = content
            .strip_prefix(MAGIC)
            .ok_or_else(|| LogError::Magic(path.to_owned()))?;
        let (payloads, used) = parse(frames);
        let was_cut = frames[used..].iter().any(|byte| *byte != 0);
        if was_cut {
            tracing::warn!(path = %path.display(), bytes = frames.len() - used, "cut off a torn end");
        }
        let offset = (MAGIC.len() + used) as u64;
        file.set_len(offset).map_err(io("truncate"))?;
        let position = Position {
            generation: 0,
            offset,
        };
        let tail = Mutex::new(Tail {
            file: Arc::new(file),
            position,
            allocated: offset,
        });
        Ok((
            Log {
                path: path.to_owned(),
                tail,
                was_cut,
                synced: Mutex::new(Synced {
                    position,
                    is_named: true,
                }),
            },
            payloads,
        ))
    }

    /// Appends one frame; it survives the death of this process once this returns.
    pub(crate) fn append(&self, payload: &[u8]) -> Result<Position, LogError> {
        let frame = frame(payload)?;
        let mut tail = lock(&self.tail);
        tail.reserve(frame.len());
        if let Err(source) = tail.file.write_all_at(&frame, tail.position.offset) {
            // A full disk may have taken half of it: the next frame is written over that half anyway.
            let _ = tail.file.set_len(tail.position.offset);
            tail.allocated = tail.position.offset;
            return Err(LogError::Io {
                action: "write",
                path: self.path.clone(),
                source,
            });
        }
        tail.position.offset += frame.len() as u64;
        Ok(tail.position)
    }

    /// Returns once everything up to `position` is on disk. Blocks; callers that wait together share one sync.
    pub(crate) fn sync(&self, position: Position) -> Result<(), LogError> {
        let mut synced = lock(&self.synced);
        if synced.position >= position {
            return Ok(());
        }
        let (file, end) = {
            let tail = lock(&self.tail);
            (Arc::clone(&tail.file), tail.position)
        };
        file.sync_data().map_err(|source| LogError::Io {
            action: "sync",
            path: self.path.clone(),
            source,
        })?;
        if !synced.is_named {
            sync_parent(&self.path)?;
            synced.is_named = true;
        }
        synced.position = end;
        Ok(())
    }

    /// Where the file ends now.
    pub(crate) fn position(&self) -> Position {
        lock(&self.tail).position
    }

    /// Whether the file ended in something unreadable: records may be missing.
    pub(crate) fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        lock(&self.tail).position.offset
    }
}

impl Tail {
    /// Writes zeros where the next frames will be. On a full disk there are none: the frame itself may still fit.
    fn reserve(&mut self, length: usize) {
        let end = self.position.offset + length as u64;
        if end > self.allocated {
            let zeros = vec![0; length + AHEAD];
            if self.file.write_all_at(&zeros, self.position.offset).is_ok() {
                self.allocated = self.position.offset + zeros.len() as u64;
            } else {
                let _ = self.file.set_len(self.position.offset);
            }
        }
    }
}

fn frame(payload: &[u8]) -> Result<Vec<u8>, LogError> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= MAX_PAYLOAD)
        .ok_or(LogError::TooLarge(payload.len()))?;
    let mut frame = Vec::with_capacity(FRAME_HEADER + payload.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// The payloads of all whole frames, and how many bytes they take.
fn parse(mut frames: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let (mut payloads, mut used) = (Vec::new(), 0);
    while let Some((payload, rest)) = split_frame(frames) {
        payloads.push(payload.to_vec());
        used += FRAME_HEADER + payload.len();
        frames = rest;
    }
    (payloads, used)
}

fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length))
        .ok()
        .filter(|length| *length <= MAX_PAYLOAD)?;
    let (payload, rest) = rest.split_at_checked(length)?;
    // An empty frame is what a run of zeros reads as; nothing writes one.
    (length > 0 && crc32fast::hash(payload) == u32::from_le_bytes(*sum)).then_some((payload, rest))
}

fn sync_parent(path: &Path) -> Result<(), LogError> {
    let parent = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| LogError::Io {
            action: "sync",
            path: parent.to_owned(),
            source,
        })
}

/// A panic elsewhere leaves the tail as it was: it is only changed after a whole frame.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file without the zeros ahead.
    fn frames_of(path: &Path, log: Log) -> Vec<u8> {
        let mut content = std::fs::read(path).unwrap();
        content.truncate(usize::try_from(log.size()).unwrap());
        content
    }

    #[test]
    fn what_was_appended_is_read_again_and_a_torn_end_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let (log, found) = Log::open(&path).unwrap();
        assert!(found.is_empty());
        log.append(b"one").unwrap();
        let position = log.append(b"two").unwrap();
        log.sync(position).unwrap();
        let whole = frames_of(&path, log);
        let torn_ends: [&[u8]; 5] = [
            b"",
            b"\x03\0",
            b"\x03\0\0\0\0\0\0\0abc",
            b"\xff\xff\xff\xff1234",
            &[0; 4096],
        ];
        for torn in torn_ends {
            std::fs::write(&path, [whole.as_slice(), torn].concat()).unwrap();
            let (log, found) = Log::open(&path).unwrap();
            assert_eq!(found, [b"one".to_vec(), b"two".to_vec()]);
            assert_eq!(log.size(), whole.len() as u64);
        }
    }

    #[test]
    fn a_cut_at_any_byte_keeps_every_frame_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let (log, _) = Log::open(&path).unwrap();
        let ends: Vec<u64> = [&b"a"[..], b"bb", b"ccc"]
            .iter()
            .map(|p| log.append(p).unwrap().offset)
            .collect();
        let whole = frames_of(&path, log);
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (_, found) = Log::open(&path).unwrap();
            assert_eq!(
                found.len(),
                ends.iter().filter(|end| **end <= cut as u64).count(),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_damaged_byte_never_becomes_a_record() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let (log, _) = Log::open(&path).unwrap();
        let written = [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()];
        for payload in &written {
            log.append(payload).unwrap();
        }
        let whole = frames_of(&path, log);
        for index in MAGIC.len()..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let (_, found) = Log::open(&path).unwrap();
            assert!(
                found.len() < written.len() && written.starts_with(&found),
                "byte {index}"
            );
        }
    }

    /// On a tmpfs of 16 pages in a mount namespace of the test's thread.
    #[test]
    fn a_full_disk_loses_no_record_and_later_ones_fit_again() {
        let test = || {
            use coracle_linux::namespace::{Namespaces, unshare};
            use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
            if let Err(error) = unshare(Namespaces::MNT) {
                eprintln!("skipped: no mount namespace: {error}");
                return;
            }
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            let directory = tempfile::tempdir().unwrap();
            mount(
                "tmpfs",
                directory.path(),
                "tmpfs",
                MountFlags::empty(),
                Some(c"size=64k"),
            )
            .unwrap();
            let (filler, path) = (directory.path().join("filler"), directory.path().join("records"));
            std::fs::write(&filler, vec![0; 16 << 10]).unwrap();
            let (log, _) = Log::open(&path).unwrap();
            let payload = vec![7; 5000];
            let mut written = 0;
            while log.append(&payload).is_ok() {
                written += 1;
            }
            assert!((1..16).contains(&written));
            assert!(log.append(&payload).is_err());
            std::fs::remove_file(&filler).unwrap();
            log.append(b"after").unwrap();
            drop(log);
            let (_, found) = Log::open(&path).unwrap();
            assert_eq!(found.len(), written + 1);
            assert!(found[..written].iter().all(|found| *found == payload) && found[written] == b"after");
            rustix::mount::unmount(directory.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn another_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        std::fs::write(&path, "something else entirely").unwrap();
        assert!(matches!(Log::open(&path), Err(LogError::Magic(_))));
    }
}
