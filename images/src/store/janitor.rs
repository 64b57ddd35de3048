//! The background thread: removes directories, makes new layers durable, collects layers that nobody needs any more.
//!
//! ```text
//!  pull, remove, release --Job--> janitor: rm -r, syncfs, one transaction
//!  flush                 --Barrier--> answered when the queue is empty
//! ```
//! A job that fails is logged and left to the next open, which finds every directory without a record.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Weak;
use std::sync::mpsc::Receiver;

use coracle_linux::tree;
use tokio::sync::oneshot;

use super::Inner;
use crate::image::LayerNumber;

pub(crate) enum Job {
    /// Remove a layer's directory that no record names.
    Remove(LayerNumber),
    /// Bring the layers to the disk and say so in their records.
    Sync(Vec<LayerNumber>),
    /// Remove layers that nobody needs.
    Collect,
    /// An unpacker was told to stop; wait until it has (its end closes the channel).
    Wait(Receiver<()>),
    /// Answer when everything before is done.
    Barrier(oneshot::Sender<()>),
}

/// Starts the thread; it ends when the store is gone.
pub(crate) fn start(jobs: Receiver<Job>, layers: OwnedFd, inner: Weak<Inner>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("images-janitor".to_owned());
    thread.spawn(move || run(&jobs, &layers, &inner)).map(drop)
}

fn run(jobs: &Receiver<Job>, layers: &OwnedFd, inner: &Weak<Inner>) {
    let mut barriers = Vec::new();
    while let Ok(first) = jobs.recv() {
        // A barrier also covers what jobs before it have queued behind it.
        let mut job = Some(first);
        while let Some(current) = job {
            match current {
                Job::Barrier(answer) => barriers.push(answer),
                other => work(other, layers, inner),
            }
            job = jobs.try_recv().ok();
        }
        for answer in barriers.drain(..) {
            let _ = answer.send(());
        }
    }
}

fn work(job: Job, layers: &OwnedFd, inner: &Weak<Inner>) {
    match job {
        Job::Remove(number) => {
            if let Err(error) = tree::remove_at(layers.as_fd(), OsStr::new(&number.to_string())) {
                tracing::warn!(layer = %number, %error, "layer directory not removed");
            }
        }
        Job::Sync(numbers) => sync(&numbers, layers, inner),
        Job::Collect => {
            if let Some(inner) = inner.upgrade() {
                inner.collect();
            }
        }
        Job::Wait(done) => {
            let _ = done.recv();
        }
        Job::Barrier(_) => {}
    }
}

fn sync(numbers: &[LayerNumber], layers: &OwnedFd, inner: &Weak<Inner>) {
    if let Err(errno) = rustix::fs::syncfs(layers) {
        tracing::warn!(%errno, "layers not synced; they will not survive a power failure");
        return;
    }
    if let Some(inner) = inner.upgrade() {
        inner.mark_durable(numbers);
    }
}
