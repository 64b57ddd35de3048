//! What the daemon is told: a TOML file, overridden by flags, with defaults that work.

mod command;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::steps::FailPoint;

pub(crate) use command::ConfigCommand;

/// coracled: runs pods on this node and answers the kubelet on a unix socket (CRI v1).
#[derive(Debug, Default, Parser)]
#[command(name = "coracled", version)]
pub(crate) struct Flags {
    /// Configuration file (TOML). Flags override it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What survives a reboot: images, writable layers, records.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// What dies with the boot: sockets, files of running pods.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Where to listen: unix:///PATH.
    #[arg(long, value_name = "unix:///PATH")]
    listen: Option<String>,
    /// Network configurations (CNI); the first file by name is used.
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// CNI plugins.
    #[arg(long, value_name = "DIR")]
    cni_bin_dir: Option<PathBuf>,
    /// Registry configurations: DIR/HOST/hosts.toml.
    #[arg(long, value_name = "DIR")]
    registry_config_dir: Option<PathBuf>,
    /// Append one JSON line per step to this file.
    #[arg(long, value_name = "FILE")]
    trace_steps: Option<PathBuf>,
    /// Kill the daemon (SIGKILL) at a step: for tests of its restart.
    #[arg(long, value_name = "STEP:before|after")]
    fail_point: Option<FailPoint>,
    /// Print the names of all steps, one a line, and leave.
    #[arg(long)]
    pub(crate) list_steps: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What is done instead of running the daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Everything the daemon was told, checked.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) listen: String,
    pub(crate) cni_conf_dir: PathBuf,
    pub(crate) cni_bin_dir: PathBuf,
    pub(crate) registry_config_dir: PathBuf,
    /// The shim program; unset: beside this program, else on PATH.
    pub(crate) shim: Option<PathBuf>,
    /// Parent of all cgroups of ours: `<cgroup_root>/shims`, and `<cgroup_root>/<sandbox id>` for pods without parent.
    pub(crate) cgroup_root: String,
    /// Read once at the start; records of another boot are of pods that are gone.
    pub(crate) boot_id_file: PathBuf,
    /// Seconds between two background samples of CPU and writable layers.
    pub(crate) stats_period_s: u64,
    /// What a container without a seccomp profile gets: "unconfined" or "runtime-default".
    pub(crate) unset_seccomp_profile: UnsetSeccompProfile,
    pub(crate) trace_steps: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) fail_point: Option<FailPoint>,
}

/// The meaning of a container without a seccomp profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UnsetSeccompProfile {
    Unconfined,
    RuntimeDefault,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("read configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration {}", path.display())]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("listen {0:?}: must be unix:///PATH")]
    Listen(String),
    #[error("{key} {}: not an absolute path", path.display())]
    Relative { key: &'static str, path: PathBuf },
    #[error("cgroup_root {0:?}: must be an absolute path below the hierarchies' roots, like \"/coracle\"")]
    CgroupRoot(String),
    #[error("stats_period_s: must be at least 1")]
    StatsPeriod,
    #[error("print")]
    Output(#[source] std::io::Error),
}

impl Default for Config {
    fn default() -> Self {
        Config {
            root: "/var/lib/coracle".into(),
            state: "/run/coracle".into(),
            listen: "unix:///run/coracle/coracled.sock".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dir: "/opt/cni/bin".into(),
            registry_config_dir: "/etc/coracle/certs.d".into(),
            shim: None,
            cgroup_root: "/coracle".into(),
            boot_id_file: "/proc/sys/kernel/random/boot_id".into(),
            stats_period_s: 10,
            unset_seccomp_profile: UnsetSeccompProfile::Unconfined,
            trace_steps: None,
            fail_point: None,
        }
    }
}

impl Config {
    /// Reads the file that the flags name, if any, and lets the flags override it.
    pub(crate) fn load(flags: Flags) -> Result<Config, ConfigError> {
        let mut config = flags
            .config
            .as_deref()
            .map_or_else(|| Ok(Config::default()), Config::read)?;
        config.override_with(flags);
        config.check()?;
        Ok(config)
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> &Path {
        Path::new(self.listen.strip_prefix("unix://").unwrap_or(&self.listen))
    }

    /// Time between two background samples.
    pub(crate) fn stats_period(&self) -> Duration {
        Duration::from_secs(self.stats_period_s)
    }

    fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    fn override_with(&mut self, flags: Flags) {
        fn set<T>(key: &mut T, flag: Option<T>) {
            if let Some(value) = flag {
                *key = value;
            }
        }
        set(&mut self.root, flags.root);
        set(&mut self.state, flags.state);
        set(&mut self.listen, flags.listen);
        set(&mut self.cni_conf_dir, flags.cni_conf_dir);
        set(&mut self.cni_bin_dir, flags.cni_bin_dir);
        set(&mut self.registry_config_dir, flags.registry_config_dir);
        if flags.trace_steps.is_some() {
            self.trace_steps = flags.trace_steps;
        }
        self.fail_point = flags.fail_point;
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self
            .listen
            .strip_prefix("unix://")
            .is_some_and(|path| path.starts_with('/') && path.len() > 1)
        {
            return Err(ConfigError::Listen(self.listen.clone()));
        }
        let absolute = [
            ("root", Some(&self.root)),
            ("state", Some(&self.state)),
            ("cni_conf_dir", Some(&self.cni_conf_dir)),
            ("cni_bin_dir", Some(&self.cni_bin_dir)),
            ("registry_config_dir", Some(&self.registry_config_dir)),
            ("shim", self.shim.as_ref()),
        ];
        for (key, path) in absolute.into_iter().filter_map(|(key, path)| Some((key, path?))) {
            if !path.is_absolute() {
                return Err(ConfigError::Relative {
                    key,
                    path: path.clone(),
                });
            }
        }
        let names = self.cgroup_root.strip_prefix('/');
        if !names.is_some_and(|names| names.split('/').all(|name| !["", ".", ".."].contains(&name))) {
            return Err(ConfigError::CgroupRoot(self.cgroup_root.clone()));
        }
        if self.stats_period_s == 0 {
            return Err(ConfigError::StatsPeriod);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let args = ["coracled", "--config", path]
            .into_iter()
            .chain(flags.iter().copied());
        Config::load(Flags::try_parse_from(args).unwrap())
    }

    #[test]
    fn an_empty_file_gives_the_defaults_and_flags_override_the_file() {
        assert_eq!(load("", &[]).unwrap().root, Path::new("/var/lib/coracle"));
        let config = load("root = \"/a\"\nstate = \"/b\"", &["--root", "/c"]).unwrap();
        assert_eq!(
            (config.root.as_path(), config.state.as_path()),
            (Path::new("/c"), Path::new("/b"))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("rot = \"/a\"", "unknown field `rot`"),
            ("root = 3", "root"),
            ("root = \"a\"", "root a: not an absolute path"),
            ("listen = \"tcp://127.0.0.1:1\"", "must be unix:///PATH"),
            ("cgroup_root = \"coracle\"", "cgroup_root"),
            ("cgroup_root = \"/a/../b\"", "cgroup_root"),
            ("cgroup_root = \"/a//b\"", "cgroup_root"),
            ("cgroup_root = \"/\"", "cgroup_root"),
            ("cgroup_root = \"/a/\"", "cgroup_root"),
            ("registry_config_dir = \"certs.d\"", "registry_config_dir"),
            (
                "shim = \"coracle-shim\"",
                "shim coracle-shim: not an absolute path",
            ),
            ("stats_period_s = 0", "stats_period_s"),
            ("unset_seccomp_profile = \"none\"", "unset_seccomp_profile"),
        ];
        for (text, names) in cases {
            let error = crate::error::chain(&load(text, &[]).unwrap_err());
            assert!(error.contains(names), "{text}: {error}");
        }
    }
}
