//! The pods and containers in memory: the answers to every list and status, and the locks that put requests in order.
//!
//! A sandbox's `lifecycle` is shared by requests for its containers and held alone by Stop and Remove of the sandbox; a
//! container's is held by whatever changes that container. What is observed (whether a container runs) lives here only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_shim_api::Client;
use tokio::sync::watch;

use crate::store::{ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord, Store, StoreError};

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

/// A container as the daemon knows it.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) lifecycle: Arc<tokio::sync::Mutex<()>>,
    record: Mutex<Saved>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Saved {
    record: ContainerRecord,
    forgotten: bool,
}

/// Where a container is between its creation and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Created,
    Running { started_at: i64 },
    Exited,
}

/// All of them, by id, and the names that requests in progress or existing objects have taken.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    names: Mutex<HashMap<String, Arc<NameSlot>>>,
}

/// More than one id begins like that: nothing may be done to any of them, and none of them is "not there".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than one id begins like that")]
pub(crate) struct Ambiguous;

type NameSlot = tokio::sync::Mutex<()>;

/// A name that nobody else can work on until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    _guard: tokio::sync::OwnedMutexGuard<()>,
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

impl Container {
    /// A container whose progress the record and, while it lives, the shim tell.
    pub(crate) fn new(sandbox: Arc<Sandbox>, record: ContainerRecord) -> Container {
        let progress = match (record.phase(), record.exit.is_some(), record.started_at) {
            (ContainerPhase::Exited, _, _) | (_, true, _) => Progress::Exited,
            (_, _, 0) => Progress::Created,
            (_, _, started_at) => Progress::Running { started_at },
        };
        Container {
            id: record.id.clone(),
            sandbox,
            lifecycle: Arc::default(),
            record: Mutex::new(Saved {
                record,
                forgotten: false,
            }),
            progress: watch::Sender::new(progress),
        }
    }

    /// The record as it is now.
    pub(crate) fn record(&self) -> ContainerRecord {
        lock(&self.record).record.clone()
    }

    /// Looks at the record without copying it.
    pub(crate) fn with_record<T>(&self, look: impl FnOnce(&ContainerRecord) -> T) -> T {
        look(&lock(&self.record).record)
    }

    /// Changes the record and saves it, as one step: reports from the shim and requests come at the same time. Nothing
    /// is saved any more once the container is forgotten.
    pub(crate) fn save(
        &self,
        store: &Store,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<(), StoreError> {
        let mut saved = lock(&self.record);
        change(&mut saved.record);
        if !saved.forgotten {
            store.put(&saved.record)?;
        }
        Ok(())
    }

    /// Deletes the record for good.
    pub(crate) fn forget(&self, store: &Store) -> Result<(), StoreError> {
        let mut saved = lock(&self.record);
        saved.forgotten = true;
        store.delete::<ContainerRecord>(&self.id)
    }

    /// Whether RemoveContainer has begun: there is no way back, even if it failed half-way.
    pub(crate) fn is_being_removed(&self) -> bool {
        self.with_record(|record| record.phase() == ContainerPhase::Removing)
    }

    /// Where the container is.
    pub(crate) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Moves on; an end is final.
    pub(crate) fn advance(&self, to: Progress) {
        self.progress.send_if_modified(|now| {
            let forward = *now != Progress::Exited && *now != to;
            if forward {
                *now = to;
            }
            forward
        });
    }

    /// Returns once the container has ended.
    pub(crate) async fn ended(&self) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as `self`: an error cannot come.
        let _ = progress.wait_for(|now| *now == Progress::Exited).await;
    }
}

impl Pods {
    /// Waits until nobody else works on `name`, then holds it. A retry of a request that timed out waits here for the
    /// first one, and then finds its result.
    pub(crate) async fn reserve(&self, name: String) -> Reservation {
        loop {
            let slot = Arc::clone(lock(&self.names).entry(name.clone()).or_default());
            let guard = Arc::clone(&slot).lock_owned().await;
            // Somebody may have forgotten the name while we waited: then another slot is the name's.
            if lock(&self.names)
                .get(&name)
                .is_some_and(|now| Arc::ptr_eq(now, &slot))
            {
                return Reservation { _guard: guard };
            }
        }
    }

    /// Forgets slots that nobody holds or waits for.
    pub(crate) fn forget_unused_names(&self) {
        lock(&self.names).retain(|_, slot| Arc::strong_count(slot) > 1);
    }

    /// Makes a sandbox visible.
    pub(crate) fn add_sandbox(&self, sandbox: Arc<Sandbox>) {
        lock(&self.sandboxes).insert(sandbox.id.clone(), sandbox);
    }

    /// Makes a container visible.
    pub(crate) fn add_container(&self, container: Arc<Container>) {
        lock(&self.containers).insert(container.id.clone(), container);
    }

    /// Forgets a sandbox.
    pub(crate) fn remove_sandbox(&self, id: &str) {
        lock(&self.sandboxes).remove(id);
        self.forget_unused_names();
    }

    /// Forgets a container.
    pub(crate) fn remove_container(&self, id: &str) {
        lock(&self.containers).remove(id);
        self.forget_unused_names();
    }

    /// By its whole id.
    pub(crate) fn sandbox(&self, id: &str) -> Option<Arc<Sandbox>> {
        lock(&self.sandboxes).get(id).cloned()
    }

    /// By its whole id.
    pub(crate) fn container(&self, id: &str) -> Option<Arc<Container>> {
        lock(&self.containers).get(id).cloned()
    }

    /// By what a request says: an id, or the beginning of one.
    pub(crate) fn named_sandbox(&self, id: &str) -> Result<Option<Arc<Sandbox>>, Ambiguous> {
        by_prefix(&lock(&self.sandboxes), id)
    }

    /// By what a request says: an id, or the beginning of one.
    pub(crate) fn named_container(&self, id: &str) -> Result<Option<Arc<Container>>, Ambiguous> {
        by_prefix(&lock(&self.containers), id)
    }

    /// All sandboxes, newest first.
    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        let mut all: Vec<_> = lock(&self.sandboxes).values().cloned().collect();
        all.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.with_record(|record| record.created_at)));
        all
    }

    /// All containers, newest first.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = lock(&self.containers).values().cloned().collect();
        all.sort_by_key(|container| std::cmp::Reverse(container.with_record(|record| record.created_at)));
        all
    }

    /// The containers of one sandbox, newest first.
    pub(crate) fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        let mut all = self.containers();
        all.retain(|container| container.sandbox.id == sandbox_id);
        all
    }
}

fn by_prefix<T>(all: &HashMap<String, Arc<T>>, id: &str) -> Result<Option<Arc<T>>, Ambiguous> {
    if let Some(found) = all.get(id) {
        return Ok(Some(Arc::clone(found)));
    }
    let mut matches = all.iter().filter(|(key, _)| key.starts_with(id));
    match (matches.next(), matches.next()) {
        (Some(_), Some(_)) => Err(Ambiguous),
        (only, _) => Ok(only.map(|(_, only)| Arc::clone(only))),
    }
}

/// Every critical section here is one assignment or one look: a panic cannot leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str) -> Arc<Sandbox> {
        Arc::new(Sandbox::new(SandboxRecord {
            id: id.to_owned(),
            ..SandboxRecord::default()
        }))
    }

    #[test]
    fn an_id_can_be_cut_short_while_it_is_unique() {
        let pods = Pods::default();
        pods.add_sandbox(sandbox("abc"));
        pods.add_sandbox(sandbox("abd"));
        pods.add_sandbox(sandbox("xyz"));
        let found = |id| {
            pods.named_sandbox(id)
                .map(|found| found.map(|one| one.id.clone()))
        };
        for (id, whole) in [("abc", "abc"), ("abd", "abd"), ("xy", "xyz")] {
            assert_eq!(found(id), Ok(Some(whole.to_owned())));
        }
        for id in ["y", "abcd"] {
            assert_eq!(found(id), Ok(None), "{id}");
        }
        for id in ["", "a", "ab"] {
            assert_eq!(found(id), Err(Ambiguous), "{id}");
        }
        assert!(pods.sandbox("xy").is_none());
    }

    #[test]
    fn an_end_is_final() {
        let container = Container::new(sandbox("s"), ContainerRecord::default());
        container.advance(Progress::Exited);
        container.advance(Progress::Running { started_at: 1 });
        assert_eq!(container.progress(), Progress::Exited);
    }

    #[tokio::test]
    async fn a_name_is_held_by_one_at_a_time() {
        let pods = Arc::new(Pods::default());
        let first = pods.reserve("n".to_owned()).await;
        let second = tokio::spawn({
            let pods = Arc::clone(&pods);
            async move { drop(pods.reserve("n".to_owned()).await) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        pods.forget_unused_names();
        drop(first);
        second.await.unwrap();
        pods.forget_unused_names();
        assert!(lock(&pods.names).is_empty());
    }
}
