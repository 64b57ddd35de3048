//! The command line: `coracle-shim --id ID --state-dir DIR [--cgroup PATH] [--trace-steps FILE]`.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Arg;

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
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgsError {
    #[error("wrong command line (usage: {USAGE})")]
    Usage(#[from] lexopt::Error),
    #[error("{0} is missing (usage: {USAGE})")]
    Missing(&'static str),
    #[error("--id {0:?} is not a sandbox id (1 to 128 characters of a-z A-Z 0-9 _ . -)")]
    BadId(OsString),
    #[error("{0} {1:?} is not an absolute path without \"..\"")]
    BadPath(&'static str, PathBuf),
}

impl Args {
    /// Parses the arguments behind the program's name.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, ArgsError> {
        let (mut id, mut state_dir, mut cgroup, mut trace_steps) = (None, None, None, None);
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(argument) = parser.next()? {
            let slot = match argument {
                Arg::Long("id") => &mut id,
                Arg::Long("state-dir") => &mut state_dir,
                Arg::Long("cgroup") => &mut cgroup,
                Arg::Long("trace-steps") => &mut trace_steps,
                other => return Err(other.unexpected().into()),
            };
            *slot = Some(parser.value()?);
        }
        Ok(Self {
            id: checked_id(id.ok_or(ArgsError::Missing("--id"))?)?,
            state_dir: absolute("--state-dir", state_dir.ok_or(ArgsError::Missing("--state-dir"))?)?,
            cgroup: cgroup.map(|path| absolute("--cgroup", path)).transpose()?,
            trace_steps: trace_steps.map(PathBuf::from),
        })
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
        Args::parse(args.iter().map(OsString::from)).map_err(|error| crate::report::chain(&error))
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
            (&["--id"][..], "'--id'"),
            (&["--id", "x", "--state-dir", "s"][..], "--state-dir \"s\""),
            (
                &["--id", "x", "--state-dir", "/s", "--cgroup", "/a/../b"][..],
                "--cgroup \"/a/../b\"",
            ),
            (&["extra"][..], "\"extra\""),
            (&["--verbose"][..], "'--verbose'"),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.contains(names), "{error}");
        }
    }
}
