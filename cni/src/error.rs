//! The error object of the protocol: what a plugin prints when it fails.

use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;

/// What kind of failure (specification, section 5, "Error"). Numbers from 100 on are the plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

impl Code {
    /// The plugin does not speak this version.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A key has a value that the plugin does not support.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container is unknown.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// A variable of the environment is missing or wrong.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// Reading or writing failed.
    pub const IO_FAILURE: Self = Self(5);
    /// The input is not JSON of the expected shape.
    pub const DECODING_FAILURE: Self = Self(6);
    /// The configuration is wrong.
    pub const INVALID_CONFIG: Self = Self(7);
    /// The network namespace is the plugin's own or none.
    pub const INVALID_NETNS: Self = Self(8);
    /// Something else has to happen first.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// `STATUS`: ADD would fail now.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// `STATUS`: ADD would fail and existing attachments may not work.
    pub const LIMITED: Self = Self(51);
    /// Everything else, as upstream numbers it.
    pub const INTERNAL: Self = Self(999);
}

/// A failure as a plugin reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginError {
    /// Kind of failure.
    pub code: Code,
    /// One sentence.
    pub msg: String,
    /// More.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl PluginError {
    /// A failure without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// A failure of another kind: the message is the error with its causes.
    pub fn from_error(code: Code, error: &dyn Error) -> Self {
        Self::new(code, chain(error))
    }

    /// Adds details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, "; {}", self.details)?;
        }
        write!(f, " (code {})", self.code.0)
    }
}

impl Error for PluginError {}

/// An error and its causes in one line, for whoever prints it.
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
