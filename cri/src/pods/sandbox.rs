//! A pod as the daemon knows it.

use std::sync::{Arc, Mutex};

use coracle_shim_api::Client;
use tokio::sync::watch;

use super::lock;
use crate::store::{SandboxPhase, SandboxRecord};

/// A pod as the daemon knows it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) lifecycle: Arc<tokio::sync::RwLock<()>>,
    record: Mutex<SandboxRecord>,
    shim: Mutex<Option<Shim>>,
    /// Whether its end is wanted: what takes long for one of its containers is given up then.
    ending: watch::Sender<bool>,
}

/// The live shim of a pod.
#[derive(Clone)]
pub(crate) struct Shim {
    pub(crate) client: Client,
    pub(crate) pid: u32,
}

impl std::fmt::Debug for Shim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shim")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    /// A sandbox without a shim.
    pub(crate) fn new(record: SandboxRecord) -> Sandbox {
        Sandbox {
            id: record.id.clone(),
            lifecycle: Arc::default(),
            record: Mutex::new(record),
            shim: Mutex::new(None),
            ending: watch::Sender::new(false),
        }
    }

    /// The record as it is now.
    pub(crate) fn record(&self) -> SandboxRecord {
        lock(&self.record).clone()
    }

    /// Looks at the record without copying it.
    pub(crate) fn with_record<T>(&self, look: impl FnOnce(&SandboxRecord) -> T) -> T {
        look(&lock(&self.record))
    }

    /// Replaces the record.
    pub(crate) fn set_record(&self, record: SandboxRecord) {
        *lock(&self.record) = record;
    }

    /// The connection to the pod's shim; none once the pod is stopped or its shim has died.
    pub(crate) fn shim(&self) -> Option<Shim> {
        lock(&self.shim).clone()
    }

    /// A shim was started or found again.
    pub(crate) fn set_shim(&self, shim: Shim) {
        *lock(&self.shim) = Some(shim);
    }

    /// Whether that process is still the shim that the sandbox counts on.
    pub(crate) fn has_shim(&self, pid: u32) -> bool {
        lock(&self.shim).as_ref().is_some_and(|shim| shim.pid == pid)
    }

    /// From now on the shim's end is expected.
    pub(crate) fn take_shim(&self) -> Option<Shim> {
        lock(&self.shim).take()
    }

    /// Whether containers can be made in it.
    pub(crate) fn is_ready(&self) -> bool {
        !*self.ending.borrow() && self.with_record(|record| record.phase() == SandboxPhase::Ready)
    }

    /// Holds it alone, to end it: nobody who works on one of its containers waits any more for what can take long.
    pub(crate) async fn hold_to_end(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.ending.send_replace(true);
        self.lifecycle.write().await
    }

    /// Returns once its end is wanted.
    pub(crate) async fn end_wanted(&self) {
        let mut ending = self.ending.subscribe();
        // The sender lives as long as `self`: an error cannot come.
        let _ = ending.wait_for(|ending| *ending).await;
    }
}
