//! The store's memory: images, layers, and who needs which layer. Pure bookkeeping, no files.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::records::{ImageRecord, LayerRecord};
use crate::digest::is_lower_hex;
use crate::image::{Image, LayerNumber};
use crate::manifest::LayerPlan;
use crate::reference::Reference;

/// Shorter prefixes of an image id are not looked up.
const SHORT_ID_MIN: usize = 4;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<String, Arc<Image>>,
    pub(crate) layers: BTreeMap<LayerNumber, LayerRecord>,
    /// Containers and what they stand on.
    holds: HashMap<String, Vec<LayerNumber>>,
    /// Directories that no record names.
    unrecorded: BTreeSet<LayerNumber>,
    /// Layers that pulls in progress build on.
    leases: HashMap<LayerNumber, usize>,
    next: u32,
}

impl State {
    /// A number no directory has.
    pub(crate) fn allocate(&mut self) -> LayerNumber {
        self.next += 1;
        LayerNumber(self.next)
    }

    /// Never gives out `taken` or less.
    pub(crate) fn skip_to(&mut self, taken: LayerNumber) {
        self.next = self.next.max(taken.0);
    }

    /// Finds a layer that can be used for `plan` and keeps it until `unlease`.
    pub(crate) fn lease(&mut self, plan: &LayerPlan) -> Option<LayerNumber> {
        let fits = |record: &LayerRecord| {
            record.diff_id == plan.diff_id
                && record
                    .chain_id
                    .as_ref()
                    .is_none_or(|chain| *chain == plan.chain_id)
        };
        let number = self
            .layers
            .iter()
            .find(|(_, record)| fits(record))
            .map(|(number, _)| *number)?;
        self.keep(number);
        Some(number)
    }

    /// Keeps a layer until `unlease`.
    pub(crate) fn keep(&mut self, number: LayerNumber) {
        *self.leases.entry(number).or_insert(0) += 1;
    }

    pub(crate) fn unlease(&mut self, number: LayerNumber) {
        if let Some(count) = self.leases.get_mut(&number) {
            *count -= 1;
            if *count == 0 {
                self.leases.remove(&number);
            }
        }
    }

    pub(crate) fn hold(&mut self, owner: &str, layers: &[LayerNumber]) {
        self.holds
            .entry(owner.to_owned())
            .or_default()
            .extend_from_slice(layers);
    }

    pub(crate) fn release(&mut self, owner: &str) -> bool {
        self.holds.remove(owner).is_some()
    }

    pub(crate) fn set_unrecorded(&mut self, directories: BTreeSet<LayerNumber>) {
        self.unrecorded = directories;
    }

    /// Directories that neither a record names nor a container stands on; each is given out once.
    pub(crate) fn take_unrecorded(&mut self) -> BTreeSet<LayerNumber> {
        let held: HashSet<LayerNumber> = self.holds.values().flatten().copied().collect();
        let (kept, free) = std::mem::take(&mut self.unrecorded)
            .into_iter()
            .partition(|number| held.contains(number));
        self.unrecorded = kept;
        free
    }

    /// Layers that no image, container or pull needs.
    pub(crate) fn garbage(&self) -> Vec<LayerNumber> {
        let mut needed: HashSet<LayerNumber> = self.leases.keys().copied().collect();
        needed.extend(self.holds.values().flatten());
        needed.extend(self.images.values().flat_map(|image| image.layers.iter()));
        self.layers
            .keys()
            .filter(|number| !needed.contains(number))
            .copied()
            .collect()
    }

    /// Finds an image by tag, digest, id or unique short id.
    pub(crate) fn find(&self, text: &str) -> Option<Arc<Image>> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Some(image) = self.images.get(&format!("sha256:{hex}")) {
            return Some(Arc::clone(image));
        }
        if let Ok(reference) = Reference::parse(text) {
            let name = reference.to_string();
            if let Some(image) = self.images.values().find(|image| has_name(image, &name)) {
                return Some(Arc::clone(image));
            }
        }
        if hex.len() < SHORT_ID_MIN || !is_lower_hex(hex) {
            return None;
        }
        let prefix = format!("sha256:{hex}");
        let mut matches = self
            .images
            .range(prefix.clone()..)
            .take_while(|(id, _)| id.starts_with(&prefix));
        match (matches.next(), matches.next()) {
            (Some((_, image)), None) => Some(Arc::clone(image)),
            _ => None,
        }
    }

    /// Directory numbers for overlayfs, uppermost first. The kernel refuses one directory twice, and of two equal layers only
    /// the upper one shows; nothing shows below an opaque root.
    pub(crate) fn lower(&self, layers: &[LayerNumber]) -> Vec<LayerNumber> {
        let mut seen = HashSet::new();
        let mut lower = Vec::new();
        for number in layers.iter().rev() {
            if seen.insert(*number) {
                lower.push(*number);
            }
            if self.layers.get(number).is_some_and(|record| record.opaque_root) {
                break;
            }
        }
        lower
    }

    /// Records of other images that lose a name because `record` takes it, without that name.
    pub(crate) fn renamed(&self, record: &ImageRecord) -> Vec<ImageRecord> {
        let taken = |tag: &String| record.repo_tags.contains(tag);
        let losers = self
            .images
            .values()
            .filter(|i| i.id != record.id && i.repo_tags.iter().any(taken));
        losers
            .map(|image| {
                let mut loser = record_of(image);
                loser.repo_tags.retain(|tag| !taken(tag));
                loser
            })
            .collect()
    }
}

pub(crate) fn record_of(image: &Image) -> ImageRecord {
    ImageRecord {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        layers: image.layers.clone(),
    }
}

fn has_name(image: &Image, name: &str) -> bool {
    image
        .repo_tags
        .iter()
        .chain(&image.repo_digests)
        .any(|own| own == name)
}
