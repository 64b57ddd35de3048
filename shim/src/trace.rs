//! `--trace-steps FILE`: one JSON line per finished step, in the form of the daemon's own (`cri/src/steps/trace.rs`), so
//! that both may write to one file and one reader understands it:
//!
//! `{"operation":"StartPod","step":"namespaces","id":"5f..","start_us":1700000000000000,"duration_us":130,"ok":true}`
//!
//! The operation is the protocol's call, an empty step the whole of it; the id is the container's, for steps of the pod the
//! sandbox's. Times are microseconds, `start_us` since the epoch. A step that was given up on the way has no line.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

/// Where the lines go; without a file measuring costs a branch.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    file: Option<Rc<File>>,
}

/// A step that has begun.
#[must_use]
pub(crate) struct Span<'a> {
    running: Option<Running<'a>>,
}

struct Running<'a> {
    file: &'a File,
    operation: &'static str,
    step: &'static str,
    id: &'a str,
    wall: SystemTime,
    began: Instant,
}

impl Trace {
    /// Appends to `path`, which several programs may share: each line is one write.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path| File::options().append(true).create(true).open(path);
        Ok(Self {
            file: path.map(open).transpose()?.map(Rc::new),
        })
    }

    /// Begins a step.
    pub(crate) fn begin<'a>(&'a self, operation: &'static str, step: &'static str, id: &'a str) -> Span<'a> {
        let running = self.file.as_deref().map(|file| Running {
            file,
            operation,
            step,
            id,
            wall: SystemTime::now(),
            began: Instant::now(),
        });
        Span { running }
    }
}

impl Span<'_> {
    /// The step has come to this result, which is handed on.
    pub(crate) fn end<T, E>(self, result: Result<T, E>) -> Result<T, E> {
        self.finish(result.is_ok());
        result
    }

    /// The step has come to its end.
    pub(crate) fn finish(self, ok: bool) {
        let Some(span) = self.running else { return };
        let start_us = span
            .wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros();
        // Ids and steps have no character that JSON would escape (checked where they come in).
        let line = format!(
            "{{\"operation\":\"{}\",\"step\":\"{}\",\"id\":\"{}\",\"start_us\":{start_us},\"duration_us\":{},\"ok\":{ok}}}\n",
            span.operation,
            span.step,
            span.id,
            span.began.elapsed().as_micros(),
        );
        let mut file = span.file;
        // A trace that cannot be written is no reason to fail a pod.
        let _ = file.write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whether_the_step_was_done() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let trace = Trace::open(Some(&path)).unwrap();
        let failed = trace.begin("StartPod", "netns", "s").end(Err::<(), u8>(7));
        assert_eq!(failed, Err(7));
        trace.begin("StartPod", "", "s").finish(true);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> = lines.collect();
        let said = |line: &serde_json::Value| (line["step"].clone(), line["ok"].clone());
        assert_eq!(said(&lines[0]), ("netns".into(), false.into()));
        assert_eq!(said(&lines[1]), ("".into(), true.into()));
        assert!(
            lines[0]["start_us"].as_u64() > Some(1_700_000_000_000_000) && lines[0]["duration_us"].is_u64()
        );
    }
}
