//! `kill`: sends a signal to a container's first process.

use super::{CliError, Global, delete};
use clap::{Arg, ArgAction, ArgMatches, Command};
use coracle_linux::pidfd;
use coracle_runtime::ContainerId;
use nix::sys::signal::Signal;
use std::os::fd::AsFd;

pub(super) fn command() -> Command {
    Command::new("kill")
        .about("Sends a signal to a container")
        .defer(|command| {
            command.args([
                Arg::new("all")
                    .long("all")
                    .short('a')
                    .action(ArgAction::SetTrue)
                    .hide(true),
                Arg::new("id").value_name("CONTAINER").required(true),
                Arg::new("signal")
                    .value_name("SIGNAL")
                    .help("Name or number; default: SIGTERM"),
            ])
        })
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8, CliError> {
    let id: ContainerId = args.get_one::<String>("id").map_or("", String::as_str).parse()?;
    let number = signal_number(args.get_one::<String>("signal").map_or("SIGTERM", String::as_str))?;
    let record = global.store.load(&id)?;
    // Without a PID namespace of its own the first process does not take the others with it.
    if number == libc::SIGKILL && !record.own_pid_namespace {
        delete::kill(&record)?;
        return Ok(0);
    }
    let sent = match record.process()? {
        Some(process) => {
            let sent = pidfd::send_signal_number(process.as_fd(), number);
            if number == libc::SIGKILL {
                // A frozen process dies when it thaws.
                record.cgroup.thaw_to_kill()?;
            }
            sent
        }
        // Kept from runc 1.0, whose --all went to all processes, also without a first one.
        None if args.get_flag("all") => Ok(()),
        None => return Err(CliError::NotRunning),
    };
    match sent {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(CliError::NotRunning),
        Err(source) => Err(CliError::Kill(source)),
        Ok(()) => Ok(0),
    }
}

/// A signal by number, or by name with or without SIG in any case (runc), or RTMIN+N.
fn signal_number(text: &str) -> Result<i32, CliError> {
    let unknown = || CliError::Signal(text.to_owned());
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() {
            0
        } else {
            offset.parse().map_err(|_| unknown())?
        };
        return if (0..=30).contains(&offset) {
            Ok(34 + offset)
        } else {
            Err(unknown())
        };
    }
    format!("SIG{name}")
        .parse::<Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigusr1", 10),
            ("SIGRTMIN+3", 37),
            ("0", 0),
        ] {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "65", "-1", "SIGNOTHING", "RTMIN+99"] {
            assert!(signal_number(text).is_err(), "{text}");
        }
    }
}
