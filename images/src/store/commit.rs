//! Adds images and takes them away: one transaction each, memory after the disk.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use super::janitor::Job;
use super::records::{Change, ImageRecord, LayerRecord};
use super::staging::{Layer, StagedLayer};
use super::state::{State, record_of};
use super::{Inner, StoreError};
use crate::chain::chain;
use crate::configuration::Configuration;
use crate::digest::Digest;
use crate::image::{Image, LayerNumber};
use crate::layer::{RootAttributes, adopt_parents};
use crate::manifest::ManifestError;
use crate::platform::Platform;

/// What is needed to record an image whose layers are all there.
pub(crate) struct Draft {
    pub(crate) id: Digest,
    pub(crate) config: Vec<u8>,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
    /// Bottom first.
    pub(crate) layers: Vec<Layer>,
}

impl Inner {
    /// Records an image: one transaction for it and its new layers. On another thread, since it syncs.
    pub(crate) async fn commit(self: &Arc<Self>, draft: Draft) -> Result<Arc<Image>, StoreError> {
        let inner = Arc::clone(self);
        let running = tokio::task::spawn_blocking(move || inner.commit_blocking(draft));
        running.await.map_err(|_| StoreError::ShuttingDown)?
    }

    fn commit_blocking(&self, draft: Draft) -> Result<Arc<Image>, StoreError> {
        self.adopt_all(&draft.layers)?;
        let _writer = self.writer();
        let fresh: Vec<(LayerNumber, LayerRecord)> = draft
            .layers
            .iter()
            .enumerate()
            .filter_map(|(index, layer)| match layer {
                Layer::Staged(staged) if !staged.is_committed() => {
                    Some((staged.number, self.layer_record(staged, index == 0)))
                }
                _ => None,
            })
            .collect();
        let mut record = ImageRecord {
            id: draft.id.to_string(),
            repo_tags: draft.tags.into_iter().collect(),
            repo_digests: draft.digests.into_iter().collect(),
            layers: draft.layers.iter().map(Layer::number).collect(),
        };
        let losers = {
            let state = self.state();
            if let Some(known) = state.images.get(&record.id) {
                add_names(&mut record, known);
            }
            state.renamed(&record)
        };
        let change = Change {
            put_images: losers.iter().cloned().chain([record.clone()]).collect(),
            put_configs: vec![(record.id.clone(), draft.config.clone())],
            put_layers: fresh.clone(),
            ..Change::default()
        };
        self.records.apply(&change)?;
        let image = self.publish(record, &draft.config, fresh, losers)?;
        for layer in &draft.layers {
            if let Layer::Staged(staged) = layer {
                staged.commit();
            }
        }
        Ok(image)
    }

    /// Gives the image that has the name `digest` the name `tag` as well; `None` when there is no such image.
    pub(crate) async fn name(
        self: &Arc<Self>,
        digest: String,
        tag: Option<String>,
    ) -> Result<Option<Arc<Image>>, StoreError> {
        let inner = Arc::clone(self);
        let running = tokio::task::spawn_blocking(move || inner.name_blocking(&digest, tag));
        running.await.map_err(|_| StoreError::ShuttingDown)?
    }

    fn name_blocking(&self, digest: &str, tag: Option<String>) -> Result<Option<Arc<Image>>, StoreError> {
        let _writer = self.writer();
        let (image, losers) = {
            let state = self.state();
            let has = |image: &&Arc<Image>| image.repo_digests.iter().any(|own| own == digest);
            let Some(image) = state.images.values().find(has) else {
                return Ok(None);
            };
            let Some(tag) = tag.filter(|tag| !image.repo_tags.contains(tag)) else {
                return Ok(Some(Arc::clone(image)));
            };
            let mut image = Image::clone(image);
            image.repo_tags.push(tag);
            image.repo_tags.sort();
            let losers = state.renamed(&record_of(&image));
            (Arc::new(image), losers)
        };
        self.records.apply(&Change {
            put_images: losers.iter().cloned().chain([record_of(&image)]).collect(),
            ..Change::default()
        })?;
        let mut state = self.state();
        rename(&mut state, losers);
        state.images.insert(image.id.clone(), Arc::clone(&image));
        Ok(Some(image))
    }

    /// The raw configuration of an image that is there.
    pub(crate) fn config(&self, id: &Digest) -> Option<Vec<u8>> {
        let known = self.state().images.contains_key(id.as_str());
        known.then(|| self.records.config(id.as_str())).flatten()
    }

    /// Puts what was just saved into memory.
    fn publish(
        &self,
        record: ImageRecord,
        config: &[u8],
        fresh: Vec<(LayerNumber, LayerRecord)>,
        losers: Vec<ImageRecord>,
    ) -> Result<Arc<Image>, StoreError> {
        let numbers: Vec<LayerNumber> = fresh.iter().map(|(number, _)| *number).collect();
        let mut state = self.state();
        state.layers.extend(fresh);
        // Other pulls may share these layers: kept until the last of them lets its StagedLayer go.
        numbers.iter().for_each(|number| state.keep(*number));
        rename(&mut state, losers);
        let image = Arc::new(build_image(record, config, &state, &self.options.platform)?);
        state.images.insert(image.id.clone(), Arc::clone(&image));
        drop(state);
        if !numbers.is_empty() {
            self.send(Job::Sync(numbers));
        }
        // An image of the same id may have stood on other copies of its layers.
        self.send(Job::Collect);
        Ok(image)
    }

    fn layer_record(&self, staged: &StagedLayer, bottom: bool) -> LayerRecord {
        let content = staged.content();
        LayerRecord {
            diff_id: staged.plan.diff_id.clone(),
            chain_id: (!bottom && !content.implied.is_empty()).then(|| staged.plan.chain_id.clone()),
            bytes: content.bytes,
            inodes: content.inodes,
            root: content.root,
            opaque_root: content.opaque_root,
            durable: false,
            boot_id: self.options.boot_id.clone(),
        }
    }

    /// Repairs implied directories, bottom up, since an upper layer may lean on a repaired one.
    fn adopt_all(&self, layers: &[Layer]) -> Result<(), StoreError> {
        for (index, layer) in layers.iter().enumerate() {
            let Layer::Staged(staged) = layer else { continue };
            let implied = staged.content().implied;
            let mut adopted = staged.adopted.lock().unwrap_or_else(PoisonError::into_inner);
            if !*adopted && index > 0 && !implied.is_empty() {
                let below: Vec<LayerNumber> = layers.iter().take(index).rev().map(Layer::number).collect();
                self.merged(&below)
                    .and_then(|lower| adopt_parents(staged.directory.as_fd(), &lower, &implied))
                    .map_err(|errno| StoreError::Adopt {
                        layer: staged.plan.diff_id.clone(),
                        source: errno.into(),
                    })?;
            }
            *adopted = true;
        }
        Ok(())
    }

    pub(super) fn remove_image(&self, id: &str) -> Result<bool, StoreError> {
        let _writer = self.writer();
        let (image, garbage) = {
            let mut state = self.state();
            let Some(image) = state.images.remove(id) else {
                return Ok(false);
            };
            (image, take_garbage(&mut state))
        };
        let change = Change {
            delete_images: vec![id.to_owned()],
            delete_layers: garbage.iter().map(|(number, _)| *number).collect(),
            ..Change::default()
        };
        if let Err(error) = self.records.apply(&change) {
            let mut state = self.state();
            state.images.insert(id.to_owned(), image);
            state.layers.extend(garbage);
            return Err(error.into());
        }
        for (number, _) in garbage {
            self.send(Job::Remove(number));
        }
        Ok(true)
    }

    /// Forgets and removes layers that nobody needs. Called by the janitor.
    pub(super) fn collect(&self) {
        let _writer = self.writer();
        let (garbage, unrecorded) = {
            let mut state = self.state();
            (take_garbage(&mut state), state.take_unrecorded())
        };
        unrecorded
            .into_iter()
            .for_each(|number| self.send(Job::Remove(number)));
        if garbage.is_empty() {
            return;
        }
        let delete_layers = garbage.iter().map(|(number, _)| *number).collect();
        if let Err(error) = self.records.apply(&Change {
            delete_layers,
            ..Change::default()
        }) {
            tracing::warn!(error = chain(&error), "unused layers not removed");
            self.state().layers.extend(garbage);
            return;
        }
        for (number, _) in garbage {
            self.send(Job::Remove(number));
        }
    }

    /// Notes that the files of these layers have reached the disk. Called by the janitor.
    pub(super) fn mark_durable(&self, numbers: &[LayerNumber]) {
        let _writer = self.writer();
        let mut put_layers = Vec::new();
        {
            let mut state = self.state();
            for number in numbers {
                if let Some(record) = state.layers.get_mut(number) {
                    record.durable = true;
                    put_layers.push((*number, record.clone()));
                }
            }
        }
        if put_layers.is_empty() {
            return;
        }
        if let Err(error) = self.records.apply(&Change {
            put_layers,
            ..Change::default()
        }) {
            tracing::warn!(error = chain(&error), "layers not marked as synced");
        }
    }
}

fn rename(state: &mut State, losers: Vec<ImageRecord>) {
    for loser in losers {
        if let Some(image) = state.images.get(&loser.id) {
            let image = Arc::new(Image {
                repo_tags: loser.repo_tags,
                ..Image::clone(image)
            });
            state.images.insert(loser.id, image);
        }
    }
}

fn add_names(record: &mut ImageRecord, known: &Image) {
    for (own, theirs) in [
        (&mut record.repo_tags, &known.repo_tags),
        (&mut record.repo_digests, &known.repo_digests),
    ] {
        own.extend(theirs.iter().cloned());
        own.sort();
        own.dedup();
    }
}

fn take_garbage(state: &mut State) -> Vec<(LayerNumber, LayerRecord)> {
    let garbage = state.garbage();
    garbage
        .into_iter()
        .filter_map(|number| Some((number, state.layers.remove(&number)?)))
        .collect()
}

/// An image as it is in memory.
pub(super) fn build_image(
    record: ImageRecord,
    config: &[u8],
    state: &State,
    platform: &Platform,
) -> Result<Image, ManifestError> {
    let unique: BTreeSet<LayerNumber> = record.layers.iter().copied().collect();
    let bytes: u64 = unique
        .iter()
        .filter_map(|number| state.layers.get(number))
        .map(|layer| layer.bytes)
        .sum();
    // What shows as `/` is the uppermost layer's own entry for it.
    let own_root = |number: &LayerNumber| state.layers.get(number).and_then(|layer| layer.root);
    let root = state.lower(&record.layers).iter().find_map(own_root);
    Ok(Image {
        config: Configuration::read(config, platform)?,
        size: bytes.saturating_add(config.len() as u64),
        root: root.unwrap_or_else(RootAttributes::default),
        id: record.id,
        repo_tags: record.repo_tags,
        repo_digests: record.repo_digests,
        layers: record.layers,
    })
}
