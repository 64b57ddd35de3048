//! The CNI protocol, both ends: configurations, results, errors, the plugin's skeleton and the caller. No networking.
//!
//! ```text
//!  caller (daemon, test)                                     plugin program
//!  Caller::add --exec; CNI_* environment, config on stdin--> plugin::run
//!              <--exit code; result or error JSON on stdout--
//! ```
//!
//! Versions 0.1.0 to 1.1.0. Source: the CNI specification 1.1.0, and libcni where the specification is silent.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod caller;
mod conf_list;
mod config;
mod error;
pub mod identifier;
pub mod plugin;
mod result;
mod version;

pub use caller::{Attachment, CallError, CallErrors, Caller};
pub use conf_list::{ConfList, LoadError};
pub use config::{ConfigError, NetworkConfig, ValidAttachment};
pub use error::{Code, PluginError, chain};
pub use result::{CniResult, Dns, Interface, IpConfig, ResultError, Route};
pub use version::Version;
