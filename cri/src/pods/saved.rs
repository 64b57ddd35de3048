//! A record in memory and in the store: the one place where records change.

use crate::store::{Position, Record, Store, StoreError};

/// The record of a sandbox or a container, as it was saved last.
#[derive(Debug)]
pub(super) struct Saved<R> {
    record: R,
    forgotten: bool,
}

impl<R: Record + Clone> Saved<R> {
    pub(super) fn new(record: R) -> Saved<R> {
        Saved {
            record,
            forgotten: false,
        }
    }

    pub(super) fn record(&self) -> &R {
        &self.record
    }

    /// Changes the record in the store and in memory, or in neither. Once it is forgotten, nothing is changed any more:
    /// a late report must not bring it back.
    pub(super) fn change(
        &mut self,
        store: &Store,
        change: impl FnOnce(&mut R),
    ) -> Result<Position, StoreError> {
        if self.forgotten {
            return Ok(store.position());
        }
        let mut changed = self.record.clone();
        change(&mut changed);
        let position = store.put(&changed)?;
        self.record = changed;
        Ok(position)
    }

    /// Deletes the record for good.
    pub(super) fn forget(&mut self, store: &Store) -> Result<(), StoreError> {
        store.delete::<R>(self.record.id())?;
        self.forgotten = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SandboxRecord;

    fn saved(store: &Store) -> Vec<String> {
        let all: Vec<SandboxRecord> = store.all().unwrap();
        all.into_iter().map(|record| record.network).collect()
    }

    #[test]
    fn memory_and_store_change_together_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut record = Saved::new(SandboxRecord::default());
        record
            .change(&store, |record| record.network = "small".to_owned())
            .unwrap();
        // Larger than any record may be.
        let refused = record.change(&store, |record| record.network = "x".repeat(65 << 20));
        assert!(matches!(refused, Err(StoreError::Log(_))), "{refused:?}");
        assert_eq!(
            (record.record().network.as_str(), saved(&store)),
            ("small", vec!["small".to_owned()])
        );
    }

    #[test]
    fn what_is_forgotten_does_not_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut record = Saved::new(SandboxRecord::default());
        record
            .change(&store, |record| record.network = "a".to_owned())
            .unwrap();
        record.forget(&store).unwrap();
        record
            .change(&store, |record| record.network = "b".to_owned())
            .unwrap();
        assert!(saved(&store).is_empty());
    }
}
