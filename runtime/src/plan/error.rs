//! What can be wrong with a request.

use crate::cgroup::SetupError;
use crate::identity::IdentityError;
use crate::seccomp::SeccompError;
use std::fmt::Display;

/// A request that cannot be carried out, and the field that is to blame.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A field that must be there is not.
    #[error("{field} is missing or empty")]
    Missing {
        /// The field.
        field: String,
    },
    /// A field has a value that makes no sense.
    #[error("{field}: {value} {why}")]
    Invalid {
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// The end of a sentence about the value.
        why: &'static str,
    },
    /// A field asks for what this version cannot do.
    #[error("{field}: {value} is not supported yet")]
    NotSupported {
        /// The field.
        field: String,
        /// What it asks for.
        value: String,
    },
    /// A kernel parameter without a namespace of its kind.
    #[error(
        "linux.sysctl[{key:?}]: needs a {namespace} namespace of the container's own in linux.namespaces"
    )]
    SysctlNeedsNamespace {
        /// The parameter.
        key: String,
        /// The namespace's name.
        namespace: &'static str,
    },
    /// Who the process is to be.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its system call filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] SetupError),
}

impl PlanError {
    pub(crate) fn missing(field: &str) -> Self {
        Self::Missing {
            field: field.to_owned(),
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, value: impl Display, why: &'static str) -> Self {
        Self::Invalid {
            field: field.into(),
            value: value.to_string(),
            why,
        }
    }
}
