//! `run`: create and start in one, and wait for the end unless detached.

use super::launch::{self, Launch};
use super::notify_socket::NotifySocket;
use super::signals::{Ending, Signals};
use super::{CliError, Global, delete, foreground};
use clap::{Arg, ArgAction, ArgMatches, Command};
use coracle_linux::pidfd;
use coracle_runtime::Starting;
use nix::sys::signal::Signal;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a start may take after a request to end.
const GRACE: Duration = Duration::from_secs(1);

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
    let signals = if detach { None } else { Some(Signals::block()?) };
    let ending = signals.as_ref().map(Signals::ending).transpose()?;
    let mut launched = Launch::plan(global, args, detach, false)?.create(global, ending.as_ref())?;
    if let Some(console) = launched.container.console.as_ref().filter(|_| !detach) {
        // Before the payload can ask for it.
        super::console::take_size(console);
    }
    let notify = NotifySocket::bind(&global.store, &launched.container.id);
    let started = notify.and_then(|notify| {
        let starting = launched.container.start()?;
        finish(starting, launched.container.pidfd.as_fd(), ending.as_ref())?;
        Ok(notify)
    });
    let notify = match started {
        Ok(notify) => notify,
        Err(error) => {
            delete::end(&launched.container, &global.log);
            return Err(error);
        }
    };
    let Some(signals) = signals else {
        if let Some(notify) = notify {
            notify.wait(launched.container.pidfd.as_fd(), launched.container.pid)?;
        }
        launched.reservation.keep();
        return Ok(0);
    };
    let waited = {
        let console = launched.container.console.as_ref().filter(|_| launched.terminal);
        foreground::wait(launched.container.pidfd.as_fd(), console, signals, notify)
    };
    if args.get_flag("keep") {
        launched.reservation.keep();
    } else {
        delete::end(&launched.container, &global.log);
    }
    Ok(waited?.shell_code())
}

/// Until the payload runs. A request to end that comes meanwhile is passed on to it, unless that takes long: something
/// else hangs then, a hook perhaps.
fn finish(mut starting: Starting, process: BorrowedFd<'_>, ending: Option<&Ending>) -> Result<(), CliError> {
    let Some(ending) = ending else {
        return Ok(starting.finish()?);
    };
    let mut asked: Option<(Signal, Instant)> = None;
    while starting.step()?.is_pending() {
        let patience = asked.map(|(_, until)| until.saturating_duration_since(Instant::now()));
        match (ending.wait_readable(starting.as_fd(), patience)?, asked) {
            (_, Some((signal, until))) if Instant::now() >= until => {
                return Err(CliError::Interrupted(signal.as_str()));
            }
            (Some(signal), _) => asked = Some((signal, Instant::now() + GRACE)),
            (None, _) => {}
        }
    }
    if let Some((signal, _)) = asked {
        // It may have ended already; that is what is waited for next.
        let _ = pidfd::send_signal_number(process, signal as i32);
    }
    Ok(())
}
