//! Reading a log file that still grows, and that may be rotated: renamed, with a new one in its place.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::line::{Line, Stream};

/// A log file being read. Reads return at once; what is there is handed on in whole lines.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// Bytes after the last newline.
    rest: Vec<u8>,
    /// Unfinished text of each stream.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Tail {
    /// A reader of `path`, which need not be there yet.
    pub(crate) fn new(path: &Path) -> Tail {
        Tail {
            path: path.to_owned(),
            file: None,
            rest: Vec::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Hands complete lines that have arrived since the last call to `emit`. True when there may be more at once: a call
    /// reads a bounded amount, so that a container that never stops writing does not keep its reader from anything else.
    pub(crate) fn read(&mut self, emit: &mut impl FnMut(Stream, &[u8])) -> io::Result<bool> {
        if self.file.is_none() && !self.open()? {
            return Ok(false);
        }
        if self.drain(emit)? {
            return Ok(true);
        }
        if !self.was_rotated() {
            return Ok(false);
        }
        // What was written between the last read and the renaming is still in the old file.
        if !self.drain(emit)? {
            self.file = None;
        }
        Ok(true)
    }

    /// Hands on what has no newline yet: the container has ended.
    pub(crate) fn finish(&mut self, emit: &mut impl FnMut(Stream, &[u8])) {
        for (stream, text) in [
            (Stream::Stdout, &mut self.stdout),
            (Stream::Stderr, &mut self.stderr),
        ] {
            if !text.is_empty() {
                emit(stream, text);
                text.clear();
            }
        }
    }

    fn open(&mut self) -> io::Result<bool> {
        match File::open(&self.path) {
            Ok(file) => {
                self.file = Some(file);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads to the end, which is false, or until enough has been read.
    fn drain(&mut self, emit: &mut impl FnMut(Stream, &[u8])) -> io::Result<bool> {
        let Some(file) = &mut self.file else {
            return Ok(false);
        };
        let mut buffer = vec![0; BUFFER];
        for _ in 0..BUFFERS {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                return Ok(false);
            }
            let mut bytes = buffer.get(..length).unwrap_or_default();
            while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let (line, after) = bytes.split_at(end);
                self.rest.extend_from_slice(line);
                bytes = after.get(1..).unwrap_or_default();
                let line = std::mem::take(&mut self.rest);
                take(&line, &mut self.stdout, &mut self.stderr, emit);
            }
            self.rest.extend_from_slice(bytes);
        }
        Ok(true)
    }

    /// Whether the path now leads to another file than the one that is open.
    fn was_rotated(&self) -> bool {
        let Some(Ok(open)) = self.file.as_ref().map(File::metadata) else {
            return false;
        };
        std::fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) != (open.dev(), open.ino()))
    }
}

const BUFFER: usize = 64 << 10;
/// So many buffers in one call.
const BUFFERS: usize = 16;
/// Longer lines are handed on in parts.
const LONGEST: usize = 256 << 10;

/// Puts the parts of a long line together.
fn take(line: &[u8], stdout: &mut Vec<u8>, stderr: &mut Vec<u8>, emit: &mut impl FnMut(Stream, &[u8])) {
    let Some(line) = Line::parse(line) else {
        // Not of the form: better shown than lost.
        emit(Stream::Stdout, line);
        return;
    };
    let text = match line.stream {
        Stream::Stdout => stdout,
        Stream::Stderr => stderr,
    };
    text.extend_from_slice(line.text);
    if !line.partial || text.len() > LONGEST {
        emit(line.stream, text);
        text.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(tail: &mut Tail) -> Vec<String> {
        let mut lines = Vec::new();
        let mut emit =
            |stream: Stream, text: &[u8]| lines.push(format!("{stream:?} {}", String::from_utf8_lossy(text)));
        while tail.read(&mut emit).unwrap() {}
        lines
    }

    #[test]
    fn a_log_is_followed_through_parts_and_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut tail = Tail::new(&path);
        assert!(all(&mut tail).is_empty());

        let mut file = File::create(&path).unwrap();
        file.write_all(b"t stdout F one\nt stdout P tw\nt stderr F err\nt stdout F o\nt std")
            .unwrap();
        assert_eq!(all(&mut tail), ["Stdout one", "Stderr err", "Stdout two"]);
        file.write_all(b"out F three\n").unwrap();
        assert_eq!(all(&mut tail), ["Stdout three"]);

        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        file.write_all(b"t stdout F four\n").unwrap();
        std::fs::write(&path, "t stdout F five\nt stdout P si").unwrap();
        assert_eq!(all(&mut tail), ["Stdout four", "Stdout five"]);
        let mut last = Vec::new();
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"x\n")
            .unwrap();
        assert!(all(&mut tail).is_empty());
        tail.finish(&mut |_, text| last = text.to_vec());
        assert_eq!(last, b"six");
    }
}
