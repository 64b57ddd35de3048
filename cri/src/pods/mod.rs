//! The pods and containers in memory: the answers to every list and status, and the locks that put requests in order.
//!
//! A sandbox's `lifecycle` is shared by requests for its containers and held alone by Stop and Remove of the sandbox; a
//! container's is held by whatever changes that container. What is observed (whether a container runs) lives here only.

mod container;
mod sandbox;
mod saved;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use container::{Container, Progress};
pub(crate) use sandbox::{Sandbox, Shim};

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
    use crate::store::SandboxRecord;

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
