//! Layers on their way into the store: one unpacking per layer at a time, nothing kept of a failed one.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::OwnedMutexGuard;

use super::Inner;
use super::janitor::Job;
use crate::digest::Digest;
use crate::image::LayerNumber;
use crate::layer::{Content, UnpackError, unpack};
use crate::manifest::LayerPlan;

type Slot = Arc<tokio::sync::Mutex<Weak<StagedLayer>>>;

/// Who is unpacking what, by chain id.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<HashMap<Digest, Slot>>);

impl InFlight {
    fn slot(&self, chain_id: &Digest) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Slots nobody uses any more are only referenced from here.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        Arc::clone(slots.entry(chain_id.clone()).or_default())
    }
}

/// A layer whose directory exists but whose record does not: removed when dropped without `commit`.
pub(crate) struct StagedLayer {
    inner: Arc<Inner>,
    pub(crate) number: LayerNumber,
    pub(crate) plan: LayerPlan,
    pub(crate) directory: OwnedFd,
    content: OnceLock<Content>,
    /// Whether implied parents have been repaired.
    pub(crate) adopted: Mutex<bool>,
    committed: AtomicBool,
}

impl StagedLayer {
    pub(crate) fn content(&self) -> Content {
        self.content.get().cloned().unwrap_or_default()
    }

    pub(crate) fn is_committed(&self) -> bool {
        self.committed.load(Ordering::Acquire)
    }

    pub(crate) fn commit(&self) {
        self.committed.store(true, Ordering::Release);
    }
}

impl Drop for StagedLayer {
    fn drop(&mut self) {
        if self.is_committed() {
            // Until now this kept it, since Inner::publish; an image may have come and gone meanwhile.
            self.inner.state().unlease(self.number);
            self.inner.send(Job::Collect);
        } else {
            self.inner.send(Job::Remove(self.number));
        }
    }
}

/// A layer in the store that must not go away while this exists.
pub(crate) struct Lease {
    inner: Arc<Inner>,
    pub(crate) number: LayerNumber,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inner.state().unlease(self.number);
        self.inner.send(Job::Collect);
    }
}

/// A layer that an image can be built on.
pub(crate) enum Layer {
    Present(Lease),
    Staged(Arc<StagedLayer>),
}

impl Layer {
    pub(crate) fn number(&self) -> LayerNumber {
        match self {
            Self::Present(lease) => lease.number,
            Self::Staged(staged) => staged.number,
        }
    }
}

/// The answer to "who has this layer?"
pub(crate) enum Claim {
    Ready(Layer),
    /// Nobody; the holder of this unpacks it.
    Vacant(Box<Vacancy>),
}

pub(crate) struct Vacancy {
    inner: Arc<Inner>,
    plan: LayerPlan,
    slot: OwnedMutexGuard<Weak<StagedLayer>>,
}

impl Inner {
    /// Finds the layer in the store or in another pull (waiting for that), or reserves the right to unpack it.
    pub(crate) async fn claim(self: &Arc<Self>, plan: &LayerPlan) -> Claim {
        let slot = self.in_flight.slot(&plan.chain_id).lock_owned().await;
        if let Some(staged) = slot.upgrade() {
            return Claim::Ready(Layer::Staged(staged));
        }
        if let Some(number) = self.state().lease(plan) {
            return Claim::Ready(Layer::Present(Lease {
                inner: Arc::clone(self),
                number,
            }));
        }
        Claim::Vacant(Box::new(Vacancy {
            inner: Arc::clone(self),
            plan: plan.clone(),
            slot,
        }))
    }
}

impl Vacancy {
    /// Makes the layer's directory.
    pub(crate) fn stage(&self) -> Result<Arc<StagedLayer>, Errno> {
        let number = self.inner.state().allocate();
        let name = number.to_string();
        rustix::fs::mkdirat(&self.inner.layers_fd, name.as_str(), Mode::from_raw_mode(0o755))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.inner.layers_fd, name.as_str(), flags, Mode::empty())
            .and_then(|fd| rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map(|()| fd));
        let directory = directory.inspect_err(|_| self.inner.send(Job::Remove(number)))?;
        Ok(Arc::new(StagedLayer {
            inner: Arc::clone(&self.inner),
            number,
            plan: self.plan.clone(),
            directory,
            content: OnceLock::new(),
            adopted: Mutex::new(false),
            committed: AtomicBool::new(false),
        }))
    }

    /// Others who wait for this layer may have it.
    pub(crate) fn fill(mut self, staged: Arc<StagedLayer>) -> Layer {
        *self.slot = Arc::downgrade(&staged);
        Layer::Staged(staged)
    }
}

/// The tasks that fetch one image's layers. When they are aborted, `flush` waits for the last of them to be gone.
pub(crate) struct Group {
    inner: Arc<Inner>,
    member: std::sync::mpsc::Sender<()>,
    done: Option<Receiver<()>>,
}

impl Group {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        let (member, done) = std::sync::mpsc::channel();
        Self {
            inner: Arc::clone(inner),
            member,
            done: Some(done),
        }
    }

    /// To be kept by each task to its end, and dropped after its result.
    pub(crate) fn member(&self) -> std::sync::mpsc::Sender<()> {
        self.member.clone()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // This one's own member must not keep the janitor waiting.
        self.member = std::sync::mpsc::channel().0;
        if let Some(done) = self.done.take() {
            self.inner.send(Job::Wait(done));
        }
    }
}

/// An unpacking on its own thread. Dropping it makes the store's `flush` wait for the thread's end.
pub(crate) struct Unpacking {
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<Result<Content, UnpackError>>,
    done: Option<Receiver<()>>,
}

/// Starts unpacking `source` into the staged directory. The thread ends when `source` ends or fails.
pub(crate) fn start(staged: &Arc<StagedLayer>, source: impl Read + Send + 'static) -> Unpacking {
    let (running, done) = std::sync::mpsc::channel();
    let (inner, staged) = (Arc::clone(&staged.inner), Arc::clone(staged));
    let task = tokio::task::spawn_blocking(move || {
        // Declared first, dropped last: `done` closes when the directory is out of this thread's hands.
        let _running: std::sync::mpsc::Sender<()> = running;
        let staged = staged;
        let limits = &staged.inner.options.limits;
        let content = unpack(source, staged.directory.as_fd(), &staged.plan.diff_id, limits)?;
        let _ = staged.content.set(content.clone());
        Ok(content)
    });
    Unpacking {
        inner,
        task,
        done: Some(done),
    }
}

impl Unpacking {
    /// Waits for the end. `None` when the thread was lost (the runtime is shutting down).
    pub(crate) async fn finish(mut self) -> Option<Result<(), UnpackError>> {
        (&mut self.task).await.ok().map(|result| result.map(|_| ()))
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            self.inner.send(Job::Wait(done));
        }
    }
}
