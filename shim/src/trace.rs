//! `--trace-steps FILE`: one JSON line per step, `{"step":"StartPod.namespaces","start_us":..,"us":..,"id":".."}`, where
//! `start_us` counts from the epoch and `id` is the container's (the sandbox's for steps of the pod).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

/// Where spans go; without a file measuring costs a branch.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    file: Option<Rc<File>>,
}

/// A step that has begun.
#[must_use]
pub(crate) struct Span<'a> {
    trace: &'a Trace,
    step: &'a str,
    id: &'a str,
    began: Option<(SystemTime, Instant)>,
}

impl Trace {
    /// Appends to `path`, which several programs may share: each line is one write.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path| File::options().append(true).create(true).open(path);
        Ok(Self {
            file: path.map(open).transpose()?.map(Rc::new),
        })
    }

    /// Begins a step; it ends when the span is dropped.
    pub(crate) fn span<'a>(&'a self, step: &'a str, id: &'a str) -> Span<'a> {
        let began = self.file.is_some().then(|| (SystemTime::now(), Instant::now()));
        Span {
            trace: self,
            step,
            id,
            began,
        }
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let (Some(file), Some((wall, began))) = (&self.trace.file, self.began) else {
            return;
        };
        let us = began.elapsed().as_micros();
        let start_us = wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros();
        // Ids and steps have no character that JSON would escape (checked where they come in).
        let line = format!(
            "{{\"step\":\"{}\",\"start_us\":{start_us},\"us\":{us},\"id\":\"{}\"}}\n",
            self.step, self.id
        );
        // A trace that cannot be written is no reason to fail a pod.
        let _ = file.as_ref().write_all(line.as_bytes());
    }
}
