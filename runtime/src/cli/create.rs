//! `create`: makes a container whose payload waits for `start`.

use super::launch::{self, Launch};
use super::{CliError, Global};
use clap::{ArgMatches, Command};

pub(super) fn command() -> Command {
    Command::new("create")
        .about("Makes a container that waits to be started")
        .defer(launch::args)
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8, CliError> {
    let launched = Launch::plan(global, args, true, true)?.create(global, None)?;
    launched.reservation.keep();
    Ok(0)
}
