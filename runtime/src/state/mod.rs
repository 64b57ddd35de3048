//! The state of a container: the specification's JSON, and the record that the command line keeps of it.

mod facts;
mod record;
mod store;
mod time;

pub(crate) use facts::Facts;
pub use record::{Record, RecordError};
pub use store::{HalfMade, Reservation, Store, StoreError, write_file};
pub use time::rfc3339;

use serde::Serialize;
use std::fmt;

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
