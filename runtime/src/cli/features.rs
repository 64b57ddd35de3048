//! `features`: what this runtime can do, for container engines.

use super::{CliError, Global};
use clap::{ArgMatches, Command};
use std::io::Write;

pub(super) fn command() -> Command {
    Command::new("features").about("Print what this runtime supports, as JSON")
}

pub(super) fn run(_: &Global, _: &ArgMatches) -> Result<u8, CliError> {
    let text = format!("{:#}\n", coracle_runtime::features::features());
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(CliError::Print)?;
    Ok(0)
}
