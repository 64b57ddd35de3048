//! The state of a container: the specification's JSON, and the record that the command line keeps of it.

mod record;
mod store;
mod time;

pub use record::{Record, RecordError};
pub use store::{Reservation, Store, StoreError, write_file};
pub use time::rfc3339;

use crate::create::Facts;
use coracle_linux::pidfd::Pid;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// Where a container is in its life (runtime.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for its start.
    Created,
    /// Its payload runs.
    Running,
    /// Its payload is frozen (ours, as runc's: the specification has no word for it).
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The state that hooks are given, as JSON.
pub(crate) fn oci_state(facts: &Facts, status: Status, pid: Option<Pid>) -> Vec<u8> {
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
    let pid = pid.map(|pid| pid.as_raw_nonzero().get());
    let Facts {
        id,
        bundle,
        oci_version,
        annotations,
        ..
    } = facts;
    let state = State {
        oci_version,
        id,
        status,
        pid,
        bundle,
        annotations,
    };
    // Plain data, of which only a path can fail: one that is not UTF-8.
    serde_json::to_vec(&state).unwrap_or_default()
}
