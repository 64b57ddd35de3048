//! A container as the daemon knows it.

use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;

use super::saved::Saved;
use super::{Sandbox, lock};
use crate::store::{ContainerPhase, ContainerRecord, ExitRecord, Position, Store, StoreError};

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) lifecycle: Arc<tokio::sync::Mutex<()>>,
    record: Mutex<Saved<ContainerRecord>>,
    progress: watch::Sender<Progress>,
    /// Set before `progress` says so. Observed: true even if it could not be saved.
    exit: OnceLock<ExitRecord>,
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
            exit: record.exit.clone().map_or_else(OnceLock::new, OnceLock::from),
            record: Mutex::new(Saved::new(record)),
            progress: watch::Sender::new(progress),
        }
    }

    /// The record as it is now.
    pub(crate) fn record(&self) -> ContainerRecord {
        self.with_record(ContainerRecord::clone)
    }

    /// Looks at the record without copying it.
    pub(crate) fn with_record<T>(&self, look: impl FnOnce(&ContainerRecord) -> T) -> T {
        look(lock(&self.record).record())
    }

    /// Changes the record in the store and in memory, or in neither, as one step: reports from the shim and requests come
    /// at the same time. Wait on [`Store::sync`] for the disk.
    pub(crate) fn save(
        &self,
        store: &Store,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<Position, StoreError> {
        lock(&self.record).change(store, change)
    }

    /// Deletes the record for good.
    pub(crate) fn forget(&self, store: &Store) -> Result<(), StoreError> {
        lock(&self.record).forget(store)
    }

    /// Whether RemoveContainer has begun: there is no way back, even if it failed half-way.
    pub(crate) fn is_being_removed(&self) -> bool {
        self.with_record(|record| record.phase() == ContainerPhase::Removing)
    }

    /// Where the container is.
    pub(crate) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// How it ended; none while it has not.
    pub(crate) fn exit(&self) -> Option<&ExitRecord> {
        self.exit.get().filter(|_| self.progress() == Progress::Exited)
    }

    /// It runs: saved, then told.
    pub(crate) fn start(&self, store: &Store, started_at: i64) -> Result<(), StoreError> {
        self.save(store, |record| record.started_at = started_at)?;
        self.advance(Progress::Running { started_at });
        Ok(())
    }

    /// It has ended; the first report of it counts. An end that cannot be saved is told all the same: it has happened.
    pub(crate) fn end(&self, store: &Store, exit: ExitRecord, started_at: i64) -> Result<(), StoreError> {
        if self.exit.set(exit.clone()).is_err() {
            return Ok(());
        }
        let saved = self.save(store, |record| {
            if record.phase() != ContainerPhase::Removing {
                record.set_phase(ContainerPhase::Exited);
            }
            if started_at != 0 {
                record.started_at = started_at;
            }
            record.exit = Some(exit);
        });
        self.advance(Progress::Exited);
        saved.map(drop)
    }

    /// Returns once the container has ended.
    pub(crate) async fn ended(&self) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as `self`: an error cannot come.
        let _ = progress.wait_for(|now| *now == Progress::Exited).await;
    }

    /// An end is final.
    fn advance(&self, to: Progress) {
        self.progress.send_if_modified(|now| {
            let forward = *now != Progress::Exited && *now != to;
            if forward {
                *now = to;
            }
            forward
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SandboxRecord;

    fn exit(code: i32, message: String) -> ExitRecord {
        ExitRecord {
            code,
            message,
            ..ExitRecord::default()
        }
    }

    fn container() -> Container {
        let sandbox = Arc::new(Sandbox::new(SandboxRecord::default()));
        Container::new(sandbox, ContainerRecord::default())
    }

    #[test]
    fn an_end_is_final_and_the_first_report_counts() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let container = container();
        container.end(&store, exit(3, String::new()), 1).unwrap();
        container.end(&store, exit(4, String::new()), 2).unwrap();
        container.start(&store, 5).unwrap();
        assert_eq!(container.progress(), Progress::Exited);
        assert_eq!(container.exit().unwrap().code, 3);
        assert_eq!(container.record().exit.unwrap().code, 3);
    }

    #[test]
    fn an_end_that_cannot_be_saved_is_told_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let container = container();
        // Larger than any record may be.
        assert!(container.end(&store, exit(3, "x".repeat(65 << 20)), 1).is_err());
        assert_eq!(container.progress(), Progress::Exited);
        assert_eq!(container.exit().unwrap().code, 3);
        assert_eq!(container.record().exit, None);
    }
}
