//! Environment and standard input as one checked request.

use super::{Arguments, Environment, EnvironmentError};
use crate::config::{ConfigError, NetworkConfig};
use crate::error::{Code, PluginError};
use crate::identifier::{self, IdentifierError};
use crate::version::Version;
use serde_json::Value;
use std::io;

/// What a plugin is asked to do, checked.
#[derive(Debug, Clone)]
pub struct Request {
    /// `CNI_CONTAINERID`; empty for GC and STATUS.
    pub container_id: String,
    /// `CNI_NETNS`; may be empty for DEL.
    pub netns: String,
    /// `CNI_IFNAME`; empty for GC and STATUS.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: Arguments,
    /// `CNI_PATH`.
    pub path: String,
    /// The configuration.
    pub config: NetworkConfig,
    /// Its version.
    pub version: Version,
    /// The network's name.
    pub network: String,
    /// The whole environment, for programs that are called in turn.
    pub environment: Environment,
}

/// A request cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A variable is missing or wrong.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// Not a command of the protocol.
    #[error("unknown CNI_COMMAND: {0}")]
    Command(String),
    /// Standard input cannot be read.
    #[error("error reading from stdin")]
    Stdin(#[source] io::Error),
    /// The configuration is not JSON.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network's name has another type.
    #[error("name must be a string")]
    NameType,
    /// The network has no name.
    #[error("missing network name")]
    NoName,
    /// The network's name may not be one.
    #[error("name")]
    Name(#[source] IdentifierError),
    /// The configuration's version is not one of ours.
    #[error("incompatible CNI versions")]
    Version(String),
    /// The configuration's version lacks the command.
    #[error("config version {version} does not allow {command}")]
    NotAllowed {
        /// The version.
        version: Version,
        /// The command.
        command: &'static str,
    },
    /// The container's network namespace is that of the plugin.
    #[error("plugin's netns and netns from CNI_NETNS should not be the same")]
    OwnNamespace,
}

impl RequestError {
    fn code(&self) -> Code {
        match self {
            Self::Environment(_) | Self::Command(_) => Code::INVALID_ENVIRONMENT,
            Self::Stdin(_) => Code::IO_FAILURE,
            Self::Config(_) | Self::NameType => Code::DECODING_FAILURE,
            Self::NoName | Self::Name(_) => Code::INVALID_CONFIG,
            Self::Version(_) | Self::NotAllowed { .. } => Code::INCOMPATIBLE_VERSION,
            Self::OwnNamespace => Code::INVALID_NETNS,
        }
    }
}

impl From<RequestError> for PluginError {
    fn from(error: RequestError) -> Self {
        let told = Self::from_error(error.code(), &error);
        match error {
            RequestError::Version(version) => {
                let ours = Version::ALL.map(|version| format!("{:?}", version.as_str()));
                told.with_details(format!(
                    "config is {version:?}, plugin supports [{}]",
                    ours.join(" ")
                ))
            }
            RequestError::Environment(_)
            | RequestError::Command(_)
            | RequestError::Stdin(_)
            | RequestError::Config(_)
            | RequestError::NameType
            | RequestError::NoName
            | RequestError::Name(_)
            | RequestError::NotAllowed { .. }
            | RequestError::OwnNamespace => told,
        }
    }
}

impl Request {
    /// Checks a command's environment and standard input.
    pub(super) fn of(environment: Environment, command: &str, stdin: &[u8]) -> Result<Self, RequestError> {
        let config = NetworkConfig::parse(stdin)?;
        let network = network_name(&config)?;
        let version = config
            .version()
            .ok_or_else(|| RequestError::Version(config.version_text().to_owned()))?;
        Ok(Self {
            container_id: environment.of_command("CNI_CONTAINERID", command),
            netns: environment.of_command("CNI_NETNS", command),
            ifname: environment.of_command("CNI_IFNAME", command),
            path: environment.text("CNI_PATH").to_owned(),
            args: Arguments::new(environment.text("CNI_ARGS")),
            config,
            version,
            network,
            environment,
        })
    }
}

fn network_name(config: &NetworkConfig) -> Result<String, RequestError> {
    let name = match config.map().get("name") {
        None | Some(Value::Null) => "",
        Some(Value::String(name)) => name,
        Some(_) => return Err(RequestError::NameType),
    };
    if name.is_empty() {
        return Err(RequestError::NoName);
    }
    identifier::check_network_name(name).map_err(RequestError::Name)?;
    Ok(name.to_owned())
}
