//! The flags before the command.

use super::CliError;
use super::log::{Format, Log};
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use coracle_runtime::state::Store;
use std::path::{Path, PathBuf};

/// What the flags before the command say.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) store: Store,
    pub(crate) log: Log,
}

impl Global {
    /// `log` is kept by the caller's side of an error too: container engines look for errors there alone.
    pub(crate) fn from_args(matches: &ArgMatches, log: Log) -> Result<Self, (CliError, Log)> {
        match state_directory(matches) {
            Ok(root) => Ok(Self {
                store: Store::new(root),
                log,
            }),
            Err(error) => Err((error, log)),
        }
    }
}

/// The log that the flags ask for.
pub(crate) fn log(matches: &ArgMatches) -> Result<Log, CliError> {
    let format = matches.get_one::<Format>("log-format").copied();
    let file = matches.get_one::<PathBuf>("log").map(PathBuf::as_path);
    Log::open(file, format.unwrap_or_default(), matches.get_flag("debug"))
}

fn state_directory(matches: &ArgMatches) -> Result<PathBuf, CliError> {
    if matches.get_flag("systemd-cgroup") {
        return Err(CliError::SystemdCgroup);
    }
    let root = matches
        .get_one::<PathBuf>("root")
        .cloned()
        .unwrap_or_else(default_root);
    if root == Path::new("/") || root.as_os_str().is_empty() {
        return Err(CliError::RootIsRoot);
    }
    // Relative paths change their meaning with the working directory.
    std::path::absolute(&root).map_err(|source| CliError::Path { path: root, source })
}

pub(super) fn args() -> [Arg; 7] {
    let flag = |name: &'static str| Arg::new(name).long(name);
    [
        flag("debug").action(ArgAction::SetTrue).help("Log more"),
        flag("log")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Write the log to this file"),
        flag("log-format")
            .value_parser(value_parser!(Format))
            .value_name("FORMAT")
            .help("text or json"),
        flag("root")
            .value_name("DIR")
            .value_parser(value_parser!(PathBuf))
            .help("Keep the state of containers here"),
        flag("criu").value_name("FILE").hide(true).help("Ignored"),
        flag("systemd-cgroup")
            .action(ArgAction::SetTrue)
            .help("Manage cgroups through systemd (not supported yet)"),
        flag("rootless")
            .value_name("MODE")
            .value_parser(["true", "false", "auto"])
            .help("Ignored: found out by itself"),
    ]
}

/// As with runc: the system's directory for root, the user's own otherwise.
fn default_root() -> PathBuf {
    let is_root = rustix::process::geteuid().is_root();
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !is_root && !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("coracle-oci"),
        None => PathBuf::from("/run/coracle-oci"),
    }
}
