//! Why a container has no cgroup.

use std::path::PathBuf;

use coracle_linux::cgroup::CgroupError;

/// Why a container's cgroup cannot be planned, made or limited.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A field that the kernel refuses: a path that cannot be a cgroup's, a value that its file does not take.
    #[error("{field}")]
    Field {
        /// Path of the field in the specification.
        field: &'static str,
        /// The cause.
        source: CgroupError,
    },
    /// A value out of its range.
    #[error("{field}: {value}: {reason}")]
    Value {
        /// Path of the field in the specification.
        field: &'static str,
        /// The refused value.
        value: String,
        /// What is allowed.
        reason: &'static str,
    },
    /// A field this host or this version cannot honour.
    #[error("{field}: not supported: {reason}")]
    NotSupported {
        /// Path of the field in the specification.
        field: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A limit needs a controller that no mounted hierarchy has.
    #[error("{field}: the {controller} controller is not mounted")]
    NoController {
        /// Path of the field in the specification.
        field: &'static str,
        /// The missing controller.
        controller: &'static str,
    },
    /// The directory is already in use by processes of somebody else.
    #[error("cgroup {0} is not empty: it holds processes already")]
    NotEmpty(PathBuf),
    /// A frozen cgroup would stop the container before it runs.
    #[error("cgroup {0} is frozen")]
    Frozen(PathBuf),
    /// Realtime budget is the parent's to give (sched-rt-group.rst).
    #[error("{field}: {value} us, and {parent} has {budget} us to give, less what its other children have")]
    RealtimeOfParent {
        /// Path of the field in the specification.
        field: &'static str,
        /// The value.
        value: String,
        /// The parent's file.
        parent: PathBuf,
        /// What it holds, in microseconds.
        budget: i64,
    },
    /// The kernel took another value than the one that was asked for.
    #[error("{field}: {file} took {taken} instead of {value}")]
    Clamped {
        /// Path of the field in the specification.
        field: &'static str,
        /// The file.
        file: PathBuf,
        /// The value.
        value: String,
        /// What the file holds now.
        taken: String,
    },
    /// Something that no field asks for.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl SetupError {
    /// Whether somebody removed the cgroup while it was used.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            SetupError::Field { source, .. } | SetupError::Cgroup(source) => source.is_gone(),
            SetupError::Value { .. }
            | SetupError::NotSupported { .. }
            | SetupError::NoController { .. }
            | SetupError::RealtimeOfParent { .. }
            | SetupError::NotEmpty(_)
            | SetupError::Frozen(_)
            | SetupError::Clamped { .. } => false,
        }
    }

    /// For what is done because of a field.
    pub(super) fn of(field: &'static str) -> impl FnOnce(CgroupError) -> Self {
        move |source| Self::Field { field, source }
    }
}
