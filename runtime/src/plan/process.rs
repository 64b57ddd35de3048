//! The program of a container.

use super::{PlanError, Stdio};
use oci_spec::runtime::{Process, Spec};
use std::ffi::CString;
use std::path::PathBuf;

/// What the container's first process runs.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    /// The program as it was named, and its arguments.
    pub(crate) args: Vec<CString>,
    /// `NAME=value`, each name once.
    pub(crate) env: Vec<CString>,
    /// Absolute, in the container.
    pub(crate) cwd: PathBuf,
    /// Whose HOME and streams these are.
    pub(crate) uid: u32,
    /// A new terminal: its size in rows and columns, if one was asked for.
    pub(crate) terminal: Option<Option<(u16, u16)>>,
}

pub(super) fn plan(spec: &Spec, stdio: &Stdio) -> Result<ProcessPlan, PlanError> {
    ProcessPlan::of(
        spec.process()
            .as_ref()
            .ok_or_else(|| PlanError::missing("process"))?,
        stdio,
    )
}

impl ProcessPlan {
    pub(crate) fn of(process: &Process, stdio: &Stdio) -> Result<Self, PlanError> {
        let args = process.args().as_deref().unwrap_or_default();
        if args.is_empty() || args[0].is_empty() {
            return Err(PlanError::missing("process.args"));
        }
        let cwd = process.cwd();
        if cwd.as_os_str().is_empty() {
            return Err(PlanError::missing("process.cwd"));
        }
        if !cwd.is_absolute() {
            return Err(PlanError::invalid(
                "process.cwd",
                cwd.display(),
                "is not an absolute path",
            ));
        }
        let wants_terminal = process.terminal().unwrap_or(false);
        if wants_terminal != matches!(stdio, Stdio::Terminal) {
            let why = "does not fit the standard streams that were given";
            return Err(PlanError::invalid("process.terminal", wants_terminal, why));
        }
        let size = process.console_size().map(|size| {
            let narrow = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
            (narrow(size.height()), narrow(size.width()))
        });
        Ok(ProcessPlan {
            args: c_strings("process.args", args)?,
            env: resolve_environment(process.env().as_deref().unwrap_or_default())?,
            cwd: cwd.clone(),
            uid: process.user().uid(),
            terminal: wants_terminal.then_some(size),
        })
    }
}

/// The environment with each name once: of two, the later one counts, as with runc.
pub(crate) fn resolve_environment(env: &[String]) -> Result<Vec<CString>, PlanError> {
    let mut resolved: Vec<&String> = Vec::with_capacity(env.len());
    for (index, variable) in env.iter().enumerate() {
        let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            let field = format!("process.env[{index}]");
            return Err(PlanError::invalid(
                field,
                format!("{variable:?}"),
                "is not of the form NAME=value",
            ));
        };
        let same = |other: &&String| other.split_once('=').is_some_and(|(other, _)| other == name);
        match resolved.iter_mut().find(|other| same(other)) {
            Some(other) => *other = variable,
            None => resolved.push(variable),
        }
    }
    let resolved: Vec<String> = resolved.into_iter().cloned().collect();
    c_strings("process.env", &resolved)
}

fn c_strings(field: &str, strings: &[String]) -> Result<Vec<CString>, PlanError> {
    let convert = |(index, text): (usize, &String)| {
        CString::new(text.as_str()).map_err(|_| {
            PlanError::invalid(
                format!("{field}[{index}]"),
                format!("{text:?}"),
                "holds a NUL byte",
            )
        })
    };
    strings.iter().enumerate().map(convert).collect()
}
