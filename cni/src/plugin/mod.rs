//! The plugin's side: environment and standard input become one checked request; its answer becomes output.
//!
//! Behaves as the skeleton every upstream plugin is built on: the same checks in the same order with the same codes.
//! The environment is passed in as data, so that all of it is tested without starting a program.

mod arguments;
mod environment;
mod request;

pub use arguments::{Arguments, ArgumentsError};
pub use environment::{Environment, EnvironmentError};
pub use request::{Request, RequestError};

use crate::error::PluginError;
use crate::result::CniResult;
use crate::version::Version;
use serde_json::{Value, json};

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

/// Runs one command of a plugin. `input` is called for standard input, and not at all for VERSION.
pub fn run<E: Into<PluginError>>(
    about: &str,
    plugin: &Plugin<E>,
    environment: Environment,
    input: impl FnOnce() -> std::io::Result<Vec<u8>>,
) -> Output {
    if environment.text("CNI_COMMAND").is_empty() {
        let versions = Version::list();
        let stderr = format!("{about}\nCNI protocol versions supported: {versions}\n");
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

/// With the version that the error is written in, if it is known.
type Failure = (PluginError, Option<Version>);

fn answer<E: Into<PluginError>>(
    plugin: &Plugin<E>,
    environment: Environment,
    input: impl FnOnce() -> std::io::Result<Vec<u8>>,
) -> Result<Option<Value>, Failure> {
    let plain = |error: RequestError| (error.into(), None);
    let command = environment.text("CNI_COMMAND").to_owned();
    environment.check(&command).map_err(|error| plain(error.into()))?;
    if command == "VERSION" {
        return Ok(Some(versions()));
    }
    let stdin = input().map_err(|error| plain(RequestError::Stdin(error)))?;
    let request = Request::of(environment, &command, &stdin).map_err(plain)?;
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
        other => return Err(RequestError::Command(other.to_owned()).into()),
    }
    Ok(None)
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
        return Err(RequestError::OwnNamespace.into());
    }
    Ok(())
}

fn allow(allowed: bool, command: &'static str, request: &Request) -> Result<(), RequestError> {
    if allowed {
        return Ok(());
    }
    let version = request.version;
    Err(RequestError::NotAllowed { version, command })
}

fn versions() -> Value {
    json!({"cniVersion": Version::V1_1_0.as_str(), "supportedVersions": Version::ALL.map(Version::as_str)})
}

fn pretty(value: &Value) -> String {
    // A JSON value that was built here always has a text form.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
