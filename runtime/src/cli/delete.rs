//! `delete`: removes what is left of a container.

use super::error::chain;
use super::log::Log;
use super::{CliError, Global};
use clap::{Arg, ArgAction, ArgMatches, Command};
use coracle_linux::cgroup::Cgroup;
use coracle_linux::pidfd::{self, Signal};
use coracle_linux::process;
use coracle_runtime::cgroup::{self, DEFAULT_PARENT};
use coracle_runtime::state::{HalfMade, Record, Status, StoreError};
use coracle_runtime::{Container, ContainerId, spec};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// How long processes may take to end after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn command() -> Command {
    Command::new("delete")
        .about("Removes a container")
        .defer(|command| {
            let force = Arg::new("force")
                .long("force")
                .short('f')
                .action(ArgAction::SetTrue);
            command.args([
                force.help("End it first, whatever it does; a missing container is not an error"),
                Arg::new("id").value_name("CONTAINER").required(true),
            ])
        })
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8, CliError> {
    let id: ContainerId = args.get_one::<String>("id").map_or("", String::as_str).parse()?;
    let force = args.get_flag("force");
    let record = match global.store.load(&id) {
        Err(missing @ StoreError::Missing(_)) => return delete_half_made(global, &id, force, missing),
        record => record?,
    };
    let status = record.status(&global.store.dir(&id))?;
    if !(force || matches!(status, Status::Stopped | Status::Created)) {
        return Err(CliError::NotStopped {
            id: id.to_string(),
            status,
        });
    }
    kill(&record)?;
    record.cgroup.remove()?;
    let hooks = record.run_poststop();
    global.store.remove(&id)?;
    // Said, but not a failure of the removal (runtime.md: "log a warning").
    if let Err(error) = hooks {
        global.log.warn(&chain(&error));
    }
    Ok(0)
}

/// A directory without a record is one of a creation that is going on, or was killed.
fn delete_half_made(
    global: &Global,
    id: &ContainerId,
    force: bool,
    missing: StoreError,
) -> Result<u8, CliError> {
    match global.store.half_made(id) {
        Some(half) if force => {
            end_half_made(global, id, &half)?;
            global.store.remove(id)?;
            Ok(0)
        }
        Some(_) => Err(CliError::NotStopped {
            id: id.to_string(),
            status: Status::Creating,
        }),
        None if force => Ok(0),
        None => Err(missing.into()),
    }
}

/// What is in its cgroup is its own only when the mark says so: before, its specification may have named another's.
fn end_half_made(global: &Global, id: &ContainerId, half: &HalfMade) -> Result<(), CliError> {
    let loaded = spec::load(&global.store.dir(id)).ok();
    // Of a specification that is not sound no cgroup was made.
    let Some(plan) = loaded.and_then(|loaded| cgroup::plan(&loaded.spec, id).ok()) else {
        return Ok(());
    };
    let Some(cgroup) = Cgroup::open(plan.path())? else {
        return Ok(());
    };
    let cgroup = cgroup.sharing(Path::new(DEFAULT_PARENT));
    if half.bundle.is_none() {
        cgroup.remove_if_empty();
        return Ok(());
    }
    if !cgroup.kill_until_empty(PATIENCE)? {
        return Err(CliError::Unkillable(id.to_string()));
    }
    Ok(cgroup.remove()?)
}

/// Ends everything of the container and waits for it.
pub(super) fn kill(record: &Record) -> Result<(), CliError> {
    let unkillable = || CliError::Unkillable(record.id.clone());
    if let Some(process) = record.process()? {
        let _ = pidfd::send_signal(process.as_fd(), Signal::KILL);
        // A frozen process dies when it thaws.
        record.cgroup.thaw_to_kill()?;
        if !pidfd::wait_end(process.as_fd(), Some(PATIENCE)).map_err(CliError::Kill)? {
            return Err(unkillable());
        }
    }
    if !record.own_pid_namespace && !record.cgroup.kill_until_empty(PATIENCE)? {
        return Err(unkillable());
    }
    Ok(())
}

/// Ends a container that this process made, as `run` does in the end and `create` when it cannot complete.
pub(super) fn end(container: &Container, log: &Log) {
    let warn = |error: &(dyn std::error::Error + 'static)| log.warn(&chain(error));
    let _ = pidfd::send_signal(container.pidfd.as_fd(), Signal::KILL);
    let _ = process::wait(container.pidfd.as_fd());
    if let Err(error) = container.cgroup.kill_until_empty(PATIENCE) {
        warn(&error);
    }
    if let Err(error) = container.cgroup.remove() {
        warn(&error);
    }
    let hooks = container
        .poststop()
        .and_then(|run| run.map_or(Ok(()), coracle_runtime::HookRun::finish));
    if let Err(error) = hooks {
        warn(&error);
    }
}
