//! What of a layer was not taken over: told once for each kind and layer, since it often concerns every file.

use std::collections::BTreeMap;

use crate::digest::Digest;

/// How often something was left out, and the first time.
#[derive(Default)]
pub(super) struct Notes(BTreeMap<&'static str, (u64, String)>);

impl Notes {
    /// Notes that something of `kind` was left out; `which` describes it.
    pub(super) fn add(&mut self, kind: &'static str, which: impl FnOnce() -> String) {
        self.0.entry(kind).or_insert_with(|| (0, which())).0 += 1;
    }

    pub(super) fn log(&self, layer: &Digest) {
        for (kind, (count, first)) in &self.0 {
            tracing::warn!(%layer, count, first, "{kind} of a layer left out");
        }
    }
}
