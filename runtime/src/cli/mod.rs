//! The command table, and the only place that prints an error and chooses an exit code.

mod console;
mod create;
mod delete;
mod error;
mod exec;
mod features;
mod foreground;
mod global;
mod hand_over;
mod kill;
mod launch;
mod list;
mod log;
mod notify_socket;
mod run;
mod signals;
mod spec;
mod start;
mod state;

pub(crate) use error::CliError;
pub(crate) use global::Global;

use clap::{Arg, ArgAction, ArgMatches, Command};
use coracle_linux::{process, seal};
use std::process::ExitCode;

/// One command.
struct Entry {
    name: &'static str,
    command: fn() -> Command,
    run: fn(&Global, &ArgMatches) -> Result<u8, CliError>,
    /// It enters containers, so it must not run from a file that they could write to.
    sealed: bool,
    /// Its exit code when the runtime itself fails.
    failure: u8,
}

const COMMANDS: &[Entry] = &[
    Entry {
        name: "create",
        command: create::command,
        run: create::run,
        sealed: true,
        failure: 1,
    },
    Entry {
        name: "delete",
        command: delete::command,
        run: delete::run,
        sealed: false,
        failure: 1,
    },
    Entry {
        name: "exec",
        command: exec::command,
        run: exec::run,
        sealed: true,
        failure: 255,
    },
    Entry {
        name: "features",
        command: features::command,
        run: features::run,
        sealed: false,
        failure: 1,
    },
    Entry {
        name: "kill",
        command: kill::command,
        run: kill::run,
        sealed: false,
        failure: 1,
    },
    Entry {
        name: "list",
        command: list::command,
        run: list::run,
        sealed: false,
        failure: 1,
    },
    Entry {
        name: "run",
        command: run::command,
        run: run::run,
        sealed: true,
        failure: 1,
    },
    Entry {
        name: "spec",
        command: spec::command,
        run: spec::run,
        sealed: false,
        failure: 1,
    },
    Entry {
        name: "start",
        command: start::command,
        run: start::run,
        sealed: false,
        failure: 1,
    },
    Entry {
        name: "state",
        command: state::command,
        run: state::run,
        sealed: false,
        failure: 1,
    },
];

/// Parses the command line, runs the command, reports its error, gives the exit code.
pub(crate) fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let Some((name, args)) = matches.subcommand() else {
        return ExitCode::FAILURE;
    };
    let Some(entry) = COMMANDS.iter().find(|entry| entry.name == name) else {
        return ExitCode::FAILURE;
    };
    let log = match global::log(&matches) {
        Ok(log) => log,
        Err(error) => return failed(entry, &log::Log::default(), &error),
    };
    let global = match Global::from_args(&matches, log) {
        Ok(global) => global,
        Err((error, log)) => return failed(entry, &log, &error),
    };
    global.log.debug(&format!("coracle {name} begins"));
    match prepare(entry).and_then(|()| (entry.run)(&global, args)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(entry, &global.log, &error),
    }
}

fn failed(entry: &Entry, log: &log::Log, error: &CliError) -> ExitCode {
    log.error(&format!("coracle {} failed: {}", entry.name, error::chain(error)));
    ExitCode::from(entry.failure)
}

fn prepare(entry: &Entry) -> Result<(), CliError> {
    if entry.sealed {
        seal::reexec_sealed()?;
        // Whatever the caller left open is not for hooks and containers (CVE-2024-21626); --preserve-fds says what is.
        process::close_on_exec_from(3).map_err(CliError::Descriptors)?;
    }
    Ok(())
}

/// After the name of the program. Container engines read the line of the specification's version.
const VERSION: &str = concat!(
    "version ",
    env!("CARGO_PKG_VERSION"),
    "\nspec: 1.3.0\nseccomp: built in"
);

fn command() -> Command {
    let top = Command::new("coracle")
        .about("Runs OCI containers")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .version(VERSION)
        .disable_version_flag(true)
        .arg(
            Arg::new("version")
                .long("version")
                .short('v')
                .action(ArgAction::Version)
                .help("Print the version"),
        )
        .args(global::args());
    COMMANDS
        .iter()
        .fold(top, |top, entry| top.subcommand((entry.command)()))
}
