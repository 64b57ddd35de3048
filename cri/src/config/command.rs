//! `coracled config`: a file to begin with, and a look at one before the daemon is started with it.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;

use super::{Config, ConfigError};

/// Every key, commented out, with its meaning and the value that holds without it.
const DEFAULT: &str = include_str!("default.toml");

/// What is done about a configuration file.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a file with every key, its meaning and its default.
    Default,
    /// Look at a file as the daemon would at its start: keys, types, values.
    Check {
        /// The file.
        file: PathBuf,
    },
}

impl ConfigCommand {
    /// # Errors
    /// The file is not one that the daemon could be started with; the error names line or key.
    pub(crate) fn run(&self) -> Result<(), ConfigError> {
        let text = match self {
            ConfigCommand::Default => DEFAULT.to_owned(),
            ConfigCommand::Check { file } => {
                Config::read(file)?.check()?;
                format!("{}: good\n", file.display())
            }
        };
        let written = std::io::stdout().write_all(text.as_bytes());
        written.map_err(ConfigError::Output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its keys with their values, in the order of the file.
    fn keys() -> Vec<(String, toml::Value)> {
        let lines = DEFAULT.lines().filter_map(|line| line.strip_prefix('#'));
        let keys = lines.filter(|line| !line.starts_with(' '));
        keys.map(|line| {
            let table: toml::Table = toml::from_str(line).unwrap();
            table.into_iter().next().unwrap()
        })
        .collect()
    }

    #[test]
    fn the_file_says_what_holds_without_it() {
        assert!(toml::from_str::<toml::Table>(DEFAULT).unwrap().is_empty());
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        for (key, value) in keys() {
            // These two have no value by default.
            let optional = ["shim", "trace_steps"].contains(&key.as_str());
            assert_eq!(defaults.get(&key), (!optional).then_some(&value), "{key}");
        }
        let text: String = keys()
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        let all: Config = toml::from_str(&text).unwrap();
        all.check().unwrap();
        assert_eq!(
            toml::Table::try_from(all).unwrap().len(),
            keys().len(),
            "a key is missing"
        );
    }

    /// docs/configuration.md has the same keys, and the same defaults.
    #[test]
    fn the_documentation_lists_every_key() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        let documented: Vec<_> = rows
            .iter()
            .map(|row| row[1].trim_matches('`').to_owned())
            .collect();
        let own: Vec<_> = keys().into_iter().map(|(key, _)| key).collect();
        assert_eq!(documented, own);
        for ((key, value), row) in keys().iter().zip(&rows) {
            let default = row[2].trim_matches('`').trim_matches('"');
            let said = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let optional = ["shim", "trace_steps"].contains(&key.as_str());
            assert!(optional || default == said, "{key}: {default}");
        }
    }
}
