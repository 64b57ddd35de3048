//! The command line: `coracle-shim --id ID --state-dir DIR [--cgroup PATH] [--trace-steps FILE]`.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the daemon asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct Args {
    /// The sandbox's id.
    pub(crate) id: String,
    /// The directory of this pod, absolute; the daemon made it.
    pub(crate) state_dir: PathBuf,
    /// The shim's own cgroup, absolute below each hierarchy's root.
    pub(crate) cgroup: Option<PathBuf>,
    /// Where to write how long each step took.
    pub(crate) trace_steps: Option<PathBuf>,
}

/// What is wrong with the command line.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum ArgsError {
    #[error("unknown argument {0:?}; usage: {USAGE}")]
    Unknown(OsString),
    #[error("{0} wants a value; usage: {USAGE}")]
    NoValue(&'static str),
    #[error("{0} is missing; usage: {USAGE}")]
    Missing(&'static str),
    #[error("--id {0:?} is not a sandbox id (1 to 128 characters of a-z A-Z 0-9 _ . -)")]
    BadId(OsString),
    #[error("{0} {1:?} is not an absolute path without \"..\"")]
    BadPath(&'static str, PathBuf),
}

impl Args {
    /// Parses the arguments behind the program's name.
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, ArgsError> {
        let mut given = Given::default();
        let mut args = args;
        while let Some(flag) = args.next() {
            let (name, slot) = given
                .slot(&flag)
                .ok_or_else(|| ArgsError::Unknown(flag.clone()))?;
            *slot = Some(args.next().ok_or(ArgsError::NoValue(name))?);
        }
        Ok(Self {
            id: checked_id(given.id.ok_or(ArgsError::Missing("--id"))?)?,
            state_dir: absolute(
                "--state-dir",
                given.state_dir.ok_or(ArgsError::Missing("--state-dir"))?,
            )?,
            cgroup: given.cgroup.map(|path| absolute("--cgroup", path)).transpose()?,
            trace_steps: given.trace_steps.map(PathBuf::from),
        })
    }
}

#[derive(Default)]
struct Given {
    id: Option<OsString>,
    state_dir: Option<OsString>,
    cgroup: Option<OsString>,
    trace_steps: Option<OsString>,
}

impl Given {
    fn slot(&mut self, flag: &OsString) -> Option<(&'static str, &mut Option<OsString>)> {
        match flag.to_str()? {
            "--id" => Some(("--id", &mut self.id)),
            "--state-dir" => Some(("--state-dir", &mut self.state_dir)),
            "--cgroup" => Some(("--cgroup", &mut self.cgroup)),
            "--trace-steps" => Some(("--trace-steps", &mut self.trace_steps)),
            _ => None,
        }
    }
}

fn checked_id(id: OsString) -> Result<String, ArgsError> {
    let id = id.into_string().map_err(ArgsError::BadId)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    // A leading dot could name the directory itself or its parent.
    if (1..=128).contains(&id.len()) && id.chars().all(allowed) && !id.starts_with('.') {
        Ok(id)
    } else {
        Err(ArgsError::BadId(id.into()))
    }
}

fn absolute(flag: &'static str, path: OsString) -> Result<PathBuf, ArgsError> {
    let path = PathBuf::from(path);
    let climbs = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    if path.is_absolute() && !climbs {
        Ok(path)
    } else {
        Err(ArgsError::BadPath(flag, path))
    }
}

const USAGE: &str = "coracle-shim --id ID --state-dir DIR [--cgroup PATH] [--trace-steps FILE]";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        Args::parse(args.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn all_flags_are_understood() {
        let args = parse(&[
            "--id",
            "a1",
            "--state-dir",
            "/s",
            "--cgroup",
            "/c",
            "--trace-steps",
            "t",
        ])
        .unwrap();
        assert_eq!((args.id.as_str(), args.cgroup), ("a1", Some("/c".into())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (args, names) in [
            (&["--id", "../x", "--state-dir", "/s"][..], "\"../x\""),
            (&["--id", "x"][..], "--state-dir is missing"),
            (&["--id"][..], "--id wants a value"),
            (&["--id", "x", "--state-dir", "s"][..], "--state-dir \"s\""),
            (
                &["--id", "x", "--state-dir", "/s", "--cgroup", "/a/../b"][..],
                "--cgroup \"/a/../b\"",
            ),
            (&["--verbose"][..], "unknown argument \"--verbose\""),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.contains(names), "{error}");
        }
    }
}
