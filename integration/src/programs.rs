//! Where the programs under test and the real clients are.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A program of Coracle: in the folder `CORACLE_BIN` names, else in `bin/` of the workspace.
///
/// # Panics
/// When it is not there, with the command that builds it.
#[must_use]
pub fn ours(name: &str) -> PathBuf {
    find("CORACLE_BIN", &workspace().join("bin"), name, "make build")
}

/// A real client or peer built from its Go module: in the folder `CORACLE_TOOLS` names, else in `integration/tools/bin`.
///
/// # Panics
/// When it is not there, with the command that builds it.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    let folder = workspace().join("integration/tools/bin");
    find(
        "CORACLE_TOOLS",
        &folder,
        name,
        &format!("integration/tools/build {name}"),
    )
}

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("integration/ is a folder of the workspace")
}

/// Runs a command to its end and gives its standard output.
///
/// # Panics
/// When it does not start or does not end with 0, with all it said.
pub fn stdout_of(command: &mut Command) -> String {
    let output = output_of(command);
    assert!(output.status.success(), "{}", said(command, &output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end, whatever that is.
///
/// # Panics
/// When it does not start.
pub fn output_of(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()))
}

/// What a command was and what it said, for the message of a failed test.
#[must_use]
pub fn said(command: &Command, output: &Output) -> String {
    format!(
        "{command:?} ended with {}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn find(variable: &str, default: &Path, name: &str, builds_it: &str) -> PathBuf {
    let folder = std::env::var_os(variable).map_or_else(|| default.to_path_buf(), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not there: `{builds_it}` makes it",
        path.display()
    );
    path
}
