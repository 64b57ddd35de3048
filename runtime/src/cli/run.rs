//! `run`: create and start in one, and wait for the end unless detached.

use super::launch::{self, Launch};
use super::{CliError, Global, delete, foreground};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::os::fd::AsFd;

pub(super) fn command() -> Command {
    Command::new("run")
        .about("Makes a container, starts it, and waits for its end")
        .defer(|command| {
            let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
            launch::args(command).args([
                flag("detach").short('d').help("Return once the container runs"),
                flag("keep").help("Keep the state of the container after its end"),
                flag("no-subreaper").help("Accepted: orphans of the container are never adopted"),
            ])
        })
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8, CliError> {
    let detach = args.get_flag("detach");
    // Signals that come while the container is being made are not lost: they are read, and passed on, later.
    let signals = if detach {
        None
    } else {
        Some(super::signals::Signals::block()?)
    };
    let mut launched = Launch::plan(global, args, detach, false)?.create(global)?;
    if let Some(console) = launched.container.console.as_ref().filter(|_| !detach) {
        // Before the payload can ask for it.
        super::console::take_size(console);
    }
    let started = launched.container.start().map_err(CliError::from);
    let started = started.and_then(|starting| starting.finish().map_err(CliError::from));
    if let Err(error) = started {
        delete::end(&launched.container, &global.log);
        return Err(error);
    }
    let Some(signals) = signals else {
        launched.reservation.keep();
        return Ok(0);
    };
    let waited = {
        let console = launched.container.console.as_ref().filter(|_| launched.terminal);
        foreground::wait(launched.container.pidfd.as_fd(), console, signals)
    };
    if args.get_flag("keep") {
        launched.reservation.keep();
    } else {
        delete::end(&launched.container, &global.log);
    }
    Ok(waited?.shell_code())
}
