//! A container as the daemon knows it.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::{Sandbox, lock};
use crate::store::{ContainerPhase, ContainerRecord, Store, StoreError};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SandboxRecord;

    #[test]
    fn an_end_is_final() {
        let container = Container::new(
            Arc::new(Sandbox::new(SandboxRecord::default())),
            ContainerRecord::default(),
        );
        container.advance(Progress::Exited);
        container.advance(Progress::Running { started_at: 1 });
        assert_eq!(container.progress(), Progress::Exited);
    }
}
