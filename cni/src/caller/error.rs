//! What can go wrong with a call.

use crate::error::{Code, PluginError, chain};
use crate::result::ResultError;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

/// Calling a plugin failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No program of this name, in libcni's words.
    #[error("failed to find plugin {plugin:?} in path [{}]", .dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(" "))]
    Find {
        /// The plugin's type.
        plugin: String,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// The program did not start.
    #[error("start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Talking to the program failed.
    #[error("run {program}")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not end within {} s and was killed", .limit.as_secs_f32())]
    Timeout {
        /// The program.
        program: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// It printed more than any result has.
    #[error("{program} printed more than {limit} bytes and was killed")]
    TooMuch {
        /// The program.
        program: PathBuf,
        /// How much that is.
        limit: usize,
    },
    /// It reported a failure.
    #[error("plugin {plugin}")]
    Plugin {
        /// The plugin's type.
        plugin: String,
        /// What it said.
        source: PluginError,
    },
    /// It failed without saying why in the form of the protocol.
    #[error("{program} failed with {status} and no error object: {output}")]
    Died {
        /// The program.
        program: PathBuf,
        /// Exit code or signal.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// It succeeded and printed something that is not JSON.
    #[error("{program} printed no JSON")]
    Output {
        /// The program.
        program: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// ADD succeeded without result.
    #[error("plugin {plugin} printed no result")]
    NoResult {
        /// The plugin's type.
        plugin: String,
    },
    /// ADD printed something that is not a result.
    #[error("plugin {plugin}")]
    Result {
        /// The plugin's type.
        plugin: String,
        /// What is wrong.
        source: ResultError,
    },
    /// ADD failed, and so did taking back what it had made.
    #[error("ADD failed, and so did taking it back ({undo})")]
    Undo {
        /// Why DEL failed.
        undo: CallErrors,
        /// Why ADD failed.
        source: Box<CallError>,
    },
}

/// Several calls failed; all were made.
#[derive(Debug)]
pub struct CallErrors(pub Vec<CallError>);

impl fmt::Display for CallErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|error| chain(error)).collect();
        f.write_str(&texts.join("; "))
    }
}

impl std::error::Error for CallErrors {}

impl CallError {
    /// What the plugin said, if a plugin said it.
    pub fn plugin_error(&self) -> Option<&PluginError> {
        match self {
            Self::Plugin { source, .. } => Some(source),
            Self::Undo { source, .. } => source.plugin_error(),
            Self::Find { .. }
            | Self::Start { .. }
            | Self::Run { .. }
            | Self::Timeout { .. }
            | Self::TooMuch { .. }
            | Self::Died { .. }
            | Self::Output { .. }
            | Self::NoResult { .. }
            | Self::Result { .. } => None,
        }
    }

    /// The protocol's code, if a plugin gave one (11 means: try again later).
    pub fn code(&self) -> Option<Code> {
        self.plugin_error().map(|error| error.code)
    }
}
