//! What open() finds: records, directories, and which of them belong together.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::commit::build_image;
use super::janitor::Job;
use super::records::{Change, Saved};
use super::state::State;
use super::{OpenError, Options};
use crate::chain::chain;
use crate::image::LayerNumber;

/// What the janitor has to do first: unrecorded directories, unused layers, layers whose sync was cut short. A directory without a
/// record that a container stands on (the records were damaged) stays until the container goes.
pub(super) fn leftovers(state: &mut State, directories: &BTreeSet<LayerNumber>) -> Vec<Job> {
    let unrecorded = directories
        .iter()
        .filter(|number| !state.layers.contains_key(number))
        .copied()
        .collect();
    state.set_unrecorded(unrecorded);
    let mut jobs = vec![Job::Collect];
    let unsynced: Vec<LayerNumber> = state
        .layers
        .iter()
        .filter(|(_, record)| !record.durable)
        .map(|(number, _)| *number)
        .collect();
    if !unsynced.is_empty() {
        jobs.push(Job::Sync(unsynced));
    }
    jobs
}

/// Turns saved records into memory, and says which records are stale.
pub(super) fn remember(
    saved: Saved,
    directories: &BTreeSet<LayerNumber>,
    options: &Options,
) -> (State, Change) {
    let mut state = State::default();
    let mut stale = Change::default();
    for number in directories {
        state.skip_to(*number);
    }
    for (number, record) in saved.layers {
        state.skip_to(number);
        if directories.contains(&number) && (record.durable || record.boot_id == options.boot_id) {
            state.layers.insert(number, record);
        } else {
            stale.delete_layers.push(number);
        }
    }
    for (record, config) in saved.images {
        let id = record.id.clone();
        let complete = record
            .layers
            .iter()
            .all(|number| state.layers.contains_key(number));
        match complete.then(|| build_image(record, &config, &state, &options.platform)) {
            Some(Ok(image)) => drop(state.images.insert(id, Arc::new(image))),
            refused => {
                let reason = refused.map_or_else(
                    || "a layer had not reached the disk".to_owned(),
                    |result| result.err().map(|error| chain(&error)).unwrap_or_default(),
                );
                tracing::warn!(image = %id, reason, "image dropped");
                stale.delete_images.push(id);
            }
        }
    }
    (state, stale)
}

pub(super) fn make_directory(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| OpenError::Path {
            path: path.to_owned(),
            source,
        })
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| OpenError::Path {
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// Empties the spool and lists the layer directories.
pub(super) fn empty_and_list(temporary: &Path, layers: &Path) -> Result<BTreeSet<LayerNumber>, OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Path { path, source }
    };
    for entry in std::fs::read_dir(temporary).map_err(at(temporary))? {
        let path = entry.map_err(at(temporary))?.path();
        std::fs::remove_file(&path).map_err(at(&path))?;
    }
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(layers).map_err(at(layers))? {
        let name = entry.map_err(at(layers))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse().ok()).map(LayerNumber));
    }
    Ok(numbers)
}
