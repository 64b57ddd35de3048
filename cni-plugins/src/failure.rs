//! How a module's error becomes an error of the protocol: each error names its own code.

use coracle_cni_protocol::plugin::ArgumentsError;
use coracle_cni_protocol::{Code, ConfigError, PluginError, ResultError};
use coracle_linux::netlink::NetlinkError;

/// An error that knows its code in the protocol (specification, section 5, "Error").
pub(crate) trait Coded: std::error::Error {
    /// The code.
    fn code(&self) -> Code;
}

/// A failure on its way out; `?` makes one of every error with a code.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) PluginError);

/// What a step of a plugin gives.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl<E: Coded> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(PluginError::from_error(error.code(), &error))
    }
}

impl From<Failure> for PluginError {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// The value of a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// It makes no sense.
    #[error("{key}: {why}")]
    Invalid {
        /// The key's path.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// It makes sense, and this plugin does not support it.
    #[error("{key}: {why}")]
    Unsupported {
        /// The key's path.
        key: String,
        /// What is not supported.
        why: String,
    },
}

/// A key whose value this plugin does not support.
pub(crate) fn unsupported(key: &str, why: &str) -> Failure {
    let (key, why) = (key.to_owned(), why.to_owned());
    KeyError::Unsupported { key, why }.into()
}

/// A key whose value makes no sense.
pub(crate) fn invalid(key: &str, why: impl std::fmt::Display) -> Failure {
    let (key, why) = (key.to_owned(), why.to_string());
    KeyError::Invalid { key, why }.into()
}

impl Coded for KeyError {
    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::INVALID_CONFIG,
            Self::Unsupported { .. } => Code::UNSUPPORTED_FIELD,
        }
    }
}

impl Coded for ConfigError {
    fn code(&self) -> Code {
        Code::DECODING_FAILURE
    }
}

impl Coded for ArgumentsError {
    fn code(&self) -> Code {
        Code::INVALID_ENVIRONMENT
    }
}

impl Coded for ResultError {
    fn code(&self) -> Code {
        Code::DECODING_FAILURE
    }
}

impl Coded for NetlinkError {
    fn code(&self) -> Code {
        Code::INTERNAL
    }
}
