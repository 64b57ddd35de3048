//! What is left of a plan once the container exists, and the state that the specification makes of it.

use super::Status;
use crate::plan::{Hooks, Plan};
use coracle_linux::pidfd::Pid;
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A container's name and its hooks.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) oci_version: String,
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) hooks: Hooks,
}

impl Facts {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self {
            id: plan.id.to_string(),
            bundle: plan.bundle.clone(),
            oci_version: plan.oci_version.clone(),
            annotations: plan.annotations.clone(),
            hooks: plan.hooks.clone(),
        }
    }

    /// The state that hooks are given, as JSON (runtime.md, "State").
    pub(crate) fn state(&self, status: Status, pid: Option<Pid>) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct State<'a> {
            oci_version: &'a str,
            id: &'a str,
            status: Status,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<i32>,
            bundle: &'a Path,
            #[serde(skip_serializing_if = "HashMap::is_empty")]
            annotations: &'a HashMap<String, String>,
        }
        let state = State {
            oci_version: &self.oci_version,
            id: &self.id,
            status,
            pid: pid.map(|pid| pid.as_raw_nonzero().get()),
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        // Plain data, of which only a path can fail: one that is not UTF-8.
        serde_json::to_vec(&state).unwrap_or_default()
    }
}
