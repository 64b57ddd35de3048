//! The plugin's side: environment and standard input become one checked request; its answer becomes output.
//!
//! Behaves as the skeleton every upstream plugin is built on: the same checks in the same order with the same codes.
//! The environment is passed in as data, so that all of it is tested without starting a program.

use crate::config::NetworkConfig;
use crate::error::{Code, PluginError};
use crate::identifier;
use crate::result::CniResult;
use crate::version::Version;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The variables of the protocol.
#[derive(Debug, Clone, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// Takes those of the process whose values are text.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// A variable; empty when it is not set.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// What a plugin is asked to do, checked.
#[derive(Debug, Clone)]
pub struct Request {
    /// `CNI_CONTAINERID`; empty for GC and STATUS.
    pub container_id: String,
    /// `CNI_NETNS`; may be empty for DEL.
    pub netns: String,
    /// `CNI_IFNAME`; empty for GC and STATUS.
    pub ifname: String,
    /// `CNI_ARGS`, split.
    pub args: Vec<(String, String)>,
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

/// What a plugin does for one command of the protocol.
pub type Does<T, E> = fn(&Request) -> Result<T, E>;

/// Tells whether a path is the plugin's own network namespace.
pub type IsOwnNamespace<E> = fn(&str) -> Result<bool, E>;

/// A plugin: what it does for each command of the protocol. `E` is the plugin's own failure.
#[derive(Debug, Clone, Copy)]
pub struct Plugin<E> {
    /// Its type in configurations, which is the name of its program.
    pub name: &'static str,
    /// Attaches a container.
    pub add: Does<CniResult, E>,
    /// Detaches it; succeeds when it is not attached.
    pub del: Does<(), E>,
    /// Fails when the attachment is not as ADD left it.
    pub check: Does<(), E>,
    /// Removes what belongs to no valid attachment of the network. Without it, GC succeeds and does nothing.
    pub gc: Option<Does<(), E>>,
    /// Fails when ADD could not work. Without it, STATUS succeeds.
    pub status: Option<Does<(), E>>,
    /// ADD, CHECK and DEL are refused for the plugin's own network namespace. Without it, they are not.
    pub is_own_namespace: Option<IsOwnNamespace<E>>,
}

/// What the program prints and how it exits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// Exit code.
    pub code: u8,
}

type Check = fn(&str) -> Result<(), identifier::IdentifierError>;

/// Which commands need a variable.
struct Variable {
    name: &'static str,
    commands: &'static [&'static str],
    check: Option<Check>,
}

const ATTACHMENT: &[&str] = &["ADD", "CHECK", "DEL"];
const VARIABLES: [Variable; 5] = [
    Variable {
        name: "CNI_COMMAND",
        commands: &["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"],
        check: None,
    },
    Variable {
        name: "CNI_CONTAINERID",
        commands: ATTACHMENT,
        check: Some(identifier::check_container_id),
    },
    Variable {
        name: "CNI_NETNS",
        commands: &["ADD", "CHECK"],
        check: None,
    },
    Variable {
        name: "CNI_IFNAME",
        commands: ATTACHMENT,
        check: Some(identifier::check_interface),
    },
    Variable {
        name: "CNI_PATH",
        commands: &["ADD", "CHECK", "DEL", "GC", "STATUS"],
        check: None,
    },
];

/// Runs one command of a plugin. `input` is called for standard input, and not at all for VERSION.
pub fn run<E: Into<PluginError>>(
    about: &str,
    plugin: &Plugin<E>,
    environment: Environment,
    input: impl FnOnce() -> std::io::Result<Vec<u8>>,
) -> Output {
    if environment.text("CNI_COMMAND").is_empty() {
        let versions: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
        let stderr = format!(
            "{about}\nCNI protocol versions supported: {}\n",
            versions.join(", ")
        );
        return Output {
            stderr,
            ..Output::default()
        };
    }
    match answer(plugin, environment, input) {
        Ok(Some(value)) => Output {
            stdout: pretty(&value),
            ..Output::default()
        },
        Ok(None) => Output::default(),
        Err((error, version)) => {
            let mut value = json!(error);
            if let (Some(version), Some(object)) = (version, value.as_object_mut()) {
                object.insert("cniVersion".to_owned(), version.into());
            }
            Output {
                stdout: pretty(&value),
                code: 1,
                ..Output::default()
            }
        }
    }
}

type Failure = (PluginError, Option<Version>);

fn answer<E: Into<PluginError>>(
    plugin: &Plugin<E>,
    environment: Environment,
    input: impl FnOnce() -> std::io::Result<Vec<u8>>,
) -> Result<Option<Value>, Failure> {
    let command = environment.text("CNI_COMMAND").to_owned();
    check_environment(&environment, &command).map_err(plain)?;
    if command == "VERSION" {
        return Ok(Some(versions()));
    }
    let stdin = input().map_err(|error| {
        plain(PluginError::new(
            Code::IO_FAILURE,
            format!("error reading from stdin: {error}"),
        ))
    })?;
    let request = request(environment, &command, &stdin)?;
    let version = request.version;
    dispatch(plugin, &command, &request).map_err(|error| (error, Some(version)))
}

fn dispatch<E: Into<PluginError>>(
    plugin: &Plugin<E>,
    command: &str,
    request: &Request,
) -> Result<Option<Value>, PluginError> {
    match command {
        "ADD" => {
            refuse_own_namespace(plugin, request)?;
            let result = (plugin.add)(request).map_err(Into::into)?;
            return Ok(Some(result.to_json(request.version)));
        }
        "CHECK" => {
            allow(request.version.has_check(), "CHECK", request)?;
            refuse_own_namespace(plugin, request)?;
            (plugin.check)(request).map_err(Into::into)?;
        }
        "DEL" => {
            // A namespace that is gone is nobody's own.
            if !request.netns.is_empty() && std::path::Path::new(&request.netns).exists() {
                refuse_own_namespace(plugin, request)?;
            }
            (plugin.del)(request).map_err(Into::into)?;
        }
        "GC" => {
            allow(request.version.has_gc(), "GC", request)?;
            plugin.gc.map_or(Ok(()), |gc| gc(request)).map_err(Into::into)?;
        }
        "STATUS" => {
            allow(request.version.has_gc(), "STATUS", request)?;
            plugin
                .status
                .map_or(Ok(()), |status| status(request))
                .map_err(Into::into)?;
        }
        other => {
            return Err(PluginError::new(
                Code::INVALID_ENVIRONMENT,
                format!("unknown CNI_COMMAND: {other}"),
            ));
        }
    }
    Ok(None)
}

fn check_environment(environment: &Environment, command: &str) -> Result<(), PluginError> {
    let needed = || {
        VARIABLES
            .iter()
            .filter(|variable| variable.commands.contains(&command))
    };
    let missing: Vec<_> = needed()
        .map(|variable| variable.name)
        .filter(|name| environment.text(name).is_empty())
        .collect();
    if !missing.is_empty() {
        let text = format!("required env variables [{}] missing", missing.join(","));
        return Err(PluginError::new(Code::INVALID_ENVIRONMENT, text));
    }
    for variable in needed() {
        if let Some(check) = variable.check {
            check(environment.text(variable.name)).map_err(|error| {
                PluginError::new(Code::INVALID_ENVIRONMENT, format!("{}: {error}", variable.name))
            })?;
        }
    }
    Ok(())
}

fn request(environment: Environment, command: &str, stdin: &[u8]) -> Result<Request, Failure> {
    let config = NetworkConfig::parse(stdin)
        .map_err(|error| plain(PluginError::from_error(Code::DECODING_FAILURE, &error)))?;
    let network = network_name(&config).map_err(plain)?;
    let version = config
        .version()
        .ok_or_else(|| plain(incompatible(config.version_text())))?;
    let args = split_args(environment.text("CNI_ARGS")).map_err(|error| (error, Some(version)))?;
    let needed = |name: &str| {
        let used = VARIABLES
            .iter()
            .any(|variable| variable.name == name && variable.commands.contains(&command));
        let used = used || name == "CNI_NETNS" && command == "DEL";
        if used {
            environment.text(name).to_owned()
        } else {
            String::new()
        }
    };
    Ok(Request {
        container_id: needed("CNI_CONTAINERID"),
        netns: needed("CNI_NETNS"),
        ifname: needed("CNI_IFNAME"),
        path: environment.text("CNI_PATH").to_owned(),
        args,
        config,
        version,
        network,
        environment,
    })
}

fn network_name(config: &NetworkConfig) -> Result<String, PluginError> {
    let name = match config.map().get("name") {
        None | Some(Value::Null) => "",
        Some(Value::String(name)) => name,
        Some(_) => return Err(PluginError::new(Code::DECODING_FAILURE, "name must be a string")),
    };
    if name.is_empty() {
        return Err(PluginError::new(Code::INVALID_CONFIG, "missing network name"));
    }
    identifier::check_network_name(name)
        .map_err(|error| PluginError::new(Code::INVALID_CONFIG, format!("name: {error}")))?;
    Ok(name.to_owned())
}

fn split_args(text: &str) -> Result<Vec<(String, String)>, PluginError> {
    text.split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => {
                let text = format!("CNI_ARGS: invalid pair {pair:?}, must be KEY=VALUE");
                Err(PluginError::new(Code::INVALID_ENVIRONMENT, text))
            }
        })
        .collect()
}

fn refuse_own_namespace<E: Into<PluginError>>(
    plugin: &Plugin<E>,
    request: &Request,
) -> Result<(), PluginError> {
    let forced = request.environment.text("CNI_NETNS_OVERRIDE").to_uppercase();
    let Some(is_own_namespace) = plugin
        .is_own_namespace
        .filter(|_| forced != "1" && forced != "TRUE")
    else {
        return Ok(());
    };
    if is_own_namespace(&request.netns).map_err(Into::into)? {
        let text = "plugin's netns and netns from CNI_NETNS should not be the same";
        return Err(PluginError::new(Code::INVALID_NETNS, text));
    }
    Ok(())
}

fn allow(allowed: bool, command: &str, request: &Request) -> Result<(), PluginError> {
    if allowed {
        return Ok(());
    }
    let text = format!("config version {} does not allow {command}", request.version);
    Err(PluginError::new(Code::INCOMPATIBLE_VERSION, text))
}

fn incompatible(version: &str) -> PluginError {
    let ours: Vec<_> = Version::ALL
        .iter()
        .map(|version| format!("{:?}", version.as_str()))
        .collect();
    PluginError::new(Code::INCOMPATIBLE_VERSION, "incompatible CNI versions").with_details(format!(
        "config is {version:?}, plugin supports [{}]",
        ours.join(" ")
    ))
}

fn versions() -> Value {
    json!({"cniVersion": Version::V1_1_0.as_str(), "supportedVersions": Version::ALL.map(Version::as_str)})
}

fn plain(error: PluginError) -> Failure {
    (error, None)
}

fn pretty(value: &Value) -> String {
    // A JSON value that was built here always has a text form.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
