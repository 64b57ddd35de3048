//! The program of a container.

use super::{PlanError, Stdio};
use oci_spec::runtime::{Process, Spec};
use std::collections::HashMap;
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
    let mut resolved: Vec<&str> = Vec::with_capacity(env.len());
    let mut places = HashMap::with_capacity(env.len());
    for (index, variable) in env.iter().enumerate() {
        let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            let field = format!("process.env[{index}]");
            return Err(PlanError::invalid(
                field,
                format!("{variable:?}"),
                "is not of the form NAME=value",
            ));
        };
        let place = *places.entry(name).or_insert(resolved.len());
        match resolved.get_mut(place) {
            Some(earlier) => *earlier = variable,
            None => resolved.push(variable),
        }
    }
    c_strings("process.env", &resolved)
}

fn c_strings<S: AsRef<str>>(field: &str, strings: &[S]) -> Result<Vec<CString>, PlanError> {
    let convert = |(index, text): (usize, &S)| {
        let text = text.as_ref();
        CString::new(text).map_err(|_| {
            PlanError::invalid(
                format!("{field}[{index}]"),
                format!("{text:?}"),
                "holds a NUL byte",
            )
        })
    };
    strings.iter().enumerate().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_variables_of_a_name_the_later_one_counts() {
        let env = ["A=1", "B=2", "A=3", "AB=4"].map(str::to_owned);
        let resolved = resolve_environment(&env).unwrap();
        assert_eq!(resolved, [c"A=3", c"B=2", c"AB=4"].map(|text| text.to_owned()));
    }

    #[test]
    fn many_variables_are_no_reason_to_wait() {
        let env: Vec<String> = (0..300_000).map(|number| format!("V{number}=x")).collect();
        assert_eq!(resolve_environment(&env).unwrap().len(), env.len());
    }
}
