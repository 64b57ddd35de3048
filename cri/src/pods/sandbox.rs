//! A pod as the daemon knows it.

use std::sync::{Arc, Mutex};

use coracle_shim_api::Client;
use tokio::sync::watch;

use super::lock;
use super::saved::Saved;
use crate::store::{Position, SandboxPhase, SandboxRecord, Store, StoreError};

/// One pod.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) lifecycle: Arc<tokio::sync::RwLock<()>>,
    record: Mutex<Saved<SandboxRecord>>,
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
            record: Mutex::new(Saved::new(record)),
            shim: Mutex::new(None),
            ending: watch::Sender::new(false),
        }
    }

    /// The record as it is now.
    pub(crate) fn record(&self) -> SandboxRecord {
        self.with_record(SandboxRecord::clone)
    }

    /// Looks at the record without copying it.
    pub(crate) fn with_record<T>(&self, look: impl FnOnce(&SandboxRecord) -> T) -> T {
        look(lock(&self.record).record())
    }

    /// Changes the record in the store and in memory, or in neither. Wait on [`Store::sync`] for the disk.
    pub(crate) fn save(
        &self,
        store: &Store,
        change: impl FnOnce(&mut SandboxRecord),
    ) -> Result<Position, StoreError> {
        lock(&self.record).change(store, change)
    }

    /// Deletes the record for good.
    pub(crate) fn forget(&self, store: &Store) -> Result<(), StoreError> {
        lock(&self.record).forget(store)
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

    /// Whether containers can be made in it: what CRI calls READY. Never again once its end was wanted.
    pub(crate) fn is_ready(&self) -> bool {
        !*self.ending.borrow() && self.with_record(|record| record.phase() == SandboxPhase::Ready)
    }

    /// Saves that no container can be made in it any more.
    pub(crate) fn save_not_ready(&self, store: &Store) -> Result<(), StoreError> {
        if self.with_record(|record| record.phase() == SandboxPhase::Ready) {
            self.save(store, |record| record.set_phase(SandboxPhase::NotReady))?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sandbox_whose_end_is_wanted_is_not_ready_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let sandbox = Sandbox::new(SandboxRecord::default());
        sandbox
            .save(&store, |record| record.set_phase(SandboxPhase::Ready))
            .unwrap();
        assert!(sandbox.is_ready());
        drop(sandbox.hold_to_end().await);
        assert!(!sandbox.is_ready());
        sandbox.save_not_ready(&store).unwrap();
        let saved: Vec<SandboxRecord> = store.all().unwrap();
        assert_eq!(saved[0].phase(), SandboxPhase::NotReady);
    }
}
