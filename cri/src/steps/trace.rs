//! One JSON line per finished step: where the time of a pod start goes.
//!
//! `{"operation":"run_pod_sandbox","step":"shim","id":"5f..","start_us":1700000000000000,"duration_us":1830,"ok":true}`;
//! an empty step is the whole operation. Times are microseconds since the epoch, so that the shim's lines fit in.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::error::chain;

/// Where the lines go, if anywhere.
#[derive(Debug)]
pub(crate) struct Trace {
    file: Option<File>,
}

/// A step in progress.
#[must_use]
pub(crate) struct Span<'t> {
    running: Option<Running<'t>>,
}

struct Running<'t> {
    file: &'t File,
    operation: &'static str,
    step: &'static str,
    id: String,
    start_us: u128,
    start: Instant,
}

/// The trace file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("open trace file {}", path.display())]
pub(crate) struct TraceError {
    path: PathBuf,
    source: std::io::Error,
}

impl Trace {
    /// No lines at all.
    pub(crate) fn off() -> Trace {
        Trace { file: None }
    }

    /// Appends to `path`.
    pub(crate) fn open(path: &Path) -> Result<Trace, TraceError> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|source| TraceError {
                path: path.to_owned(),
                source,
            })?;
        Ok(Trace { file: Some(file) })
    }

    /// Starts the clock of one step.
    pub(crate) fn begin(&self, operation: &'static str, step: &'static str, id: &str) -> Span<'_> {
        let running = self.file.as_ref().map(|file| Running {
            file,
            operation,
            step,
            id: id.to_owned(),
            start_us: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_micros()),
            start: Instant::now(),
        });
        Span { running }
    }
}

impl Span<'_> {
    /// Writes the line.
    pub(crate) fn end(self, ok: bool) {
        let Some(span) = self.running else { return };
        let line = format!(
            "{{\"operation\":\"{}\",\"step\":\"{}\",\"id\":\"{}\",\"start_us\":{},\"duration_us\":{},\"ok\":{ok}}}\n",
            span.operation,
            span.step,
            span.id,
            span.start_us,
            span.start.elapsed().as_micros(),
        );
        // One write on an O_APPEND file: lines of concurrent steps do not mix.
        let mut file = span.file;
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::debug!(error = %chain(&error), "trace line lost");
        }
    }
}
