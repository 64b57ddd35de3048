//! The programs under test, and what they say.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A program under test: of the directory `CORACLE_BIN`, else of `bin` of the workspace.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin");
    let program = std::env::var_os("CORACLE_BIN")
        .map_or_else(built, PathBuf::from)
        .join(name);
    assert!(
        program.is_file(),
        "{} is missing: `make build` makes it",
        program.display()
    );
    program
}

/// `coracle`, without what the caller's own service manager may have left in the environment.
#[must_use]
pub fn coracle() -> Command {
    let mut command = Command::new(path("coracle"));
    command.env_remove("LISTEN_FDS");
    command
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; -1 after a signal, which no test expects.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// Runs a command to its end.
    pub fn by(command: &mut Command) -> Self {
        command.output().unwrap().into()
    }

    /// Everything it said.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// What it wrote, after success.
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// What it complained about, after failure with `code`.
    #[must_use]
    pub fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }

    /// A field of /proc/PID/status in the output.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        let found = self
            .out
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {name}: {self:?}")).trim()
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
