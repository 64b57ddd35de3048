//! The variables of the protocol, and which commands need which.

use crate::identifier::{self, IdentifierError};
use std::collections::BTreeMap;

/// The variables of the environment are not what the command needs.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// Variables that the command needs are not set.
    #[error("required env variables [{0}] missing")]
    Missing(String),
    /// A variable has a value that it may not have.
    #[error("{name}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        source: IdentifierError,
    },
}

type Check = fn(&str) -> Result<(), IdentifierError>;

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

    /// Checks the variables that the command needs.
    pub(super) fn check(&self, command: &str) -> Result<(), EnvironmentError> {
        let needed = || {
            VARIABLES
                .iter()
                .filter(|variable| variable.commands.contains(&command))
        };
        let missing: Vec<_> = needed()
            .map(|variable| variable.name)
            .filter(|name| self.text(name).is_empty())
            .collect();
        if !missing.is_empty() {
            return Err(EnvironmentError::Missing(missing.join(",")));
        }
        for variable in needed() {
            if let Some(check) = variable.check {
                let name = variable.name;
                check(self.text(name)).map_err(|source| EnvironmentError::Variable { name, source })?;
            }
        }
        Ok(())
    }

    /// A variable, if it is one that the command has; else empty.
    pub(super) fn of_command(&self, name: &str, command: &str) -> String {
        let needed = VARIABLES
            .iter()
            .any(|variable| variable.name == name && variable.commands.contains(&command));
        // DEL may come without a namespace.
        let used = needed || name == "CNI_NETNS" && command == "DEL";
        if used {
            self.text(name).to_owned()
        } else {
            String::new()
        }
    }
}
