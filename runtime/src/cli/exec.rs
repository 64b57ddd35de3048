//! `exec`: one more process in a container.

use super::signals::Signals;
use super::{CliError, Global, foreground, hand_over, launch};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use coracle_linux::cgroup::Cgroup;
use coracle_linux::pidfd::Pid;
use coracle_runtime::exec::{self, ExecRequest};
use coracle_runtime::state::{Record, Status};
use coracle_runtime::{ContainerId, Stdio, seccomp, spec};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, Spec};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(super) fn command() -> Command {
    Command::new("exec")
        .about("Runs one more process in a container")
        .defer(|command| {
            command
                .args(what_to_run())
                .args(whose_process())
                .args(how_to_run())
        })
}

fn what_to_run() -> [Arg; 6] {
    [
        Arg::new("id")
            .value_name("CONTAINER")
            .required(true)
            .help("Name of the container"),
        // Everything after the name belongs to the command, whatever it looks like.
        Arg::new("command")
            .value_name("COMMAND")
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .help("The program and its arguments"),
        path("process")
            .short('p')
            .help("Read the process from this JSON file"),
        path("cwd").help("Its working directory in the container"),
        many("env")
            .short('e')
            .value_name("NAME=VALUE")
            .help("Add a variable to its environment"),
        switch("tty").short('t').help("Give it a terminal"),
    ]
}

fn whose_process() -> [Arg; 6] {
    [
        flag("user")
            .short('u')
            .value_name("UID[:GID]")
            .help("Whose process it is"),
        many("additional-gids")
            .short('g')
            .value_name("GID")
            .help("Add a group"),
        many("cap")
            .short('c')
            .value_name("CAPABILITY")
            .help("Add a capability"),
        switch("no-new-privs").help("Its programs may not gain privileges"),
        flag("process-label").value_name("LABEL").help("SELinux label"),
        flag("apparmor").value_name("PROFILE").help("AppArmor profile"),
    ]
}

fn how_to_run() -> [Arg; 7] {
    [
        switch("detach").short('d').help("Return once it runs"),
        path("pid-file").help("Write its process id to this file"),
        path("console-socket").help("Send the terminal's other end to this unix socket"),
        path("pidfd-socket").help("Send a descriptor of the process to this unix socket"),
        many("cgroup")
            .value_name("[CONTROLLER:]PATH")
            .help("Start in a cgroup below the container's"),
        switch("ignore-paused").help("Also in a paused container"),
        flag("preserve-fds")
            .value_name("N")
            .value_parser(value_parser!(u32))
            .help("Pass descriptors 3 to 2+N on"),
    ]
}

fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name)
}

fn switch(name: &'static str) -> Arg {
    flag(name).action(ArgAction::SetTrue)
}

fn many(name: &'static str) -> Arg {
    flag(name).action(ArgAction::Append)
}

fn path(name: &'static str) -> Arg {
    flag(name).value_name("PATH").value_parser(value_parser!(PathBuf))
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8, CliError> {
    let detach = args.get_flag("detach");
    let console_socket = args.get_one::<PathBuf>("console-socket");
    let request = request(global, args)?;
    launch::check_terminal(
        request.process.terminal().unwrap_or(false),
        detach,
        console_socket.is_some(),
    )?;
    let plan = exec::plan(request)?;
    let signals = if detach { None } else { Some(Signals::block()?) };
    let process = exec::spawn(plan)?.finish()?;
    for warning in &process.warnings {
        global.log.warn(warning);
    }
    if let (Some(socket), Some(console)) = (console_socket, &process.console) {
        hand_over::send(socket, b"/dev/console", console.as_fd())?;
    }
    if let Some(socket) = args.get_one::<PathBuf>("pidfd-socket") {
        hand_over::send(socket, b"pidfd", process.pidfd.as_fd())?;
    }
    if let Some(path) = args.get_one::<PathBuf>("pid-file") {
        launch::write_pid_file(path, process.pid)?;
    }
    let Some(signals) = signals else { return Ok(0) };
    let exit = foreground::wait(process.pidfd.as_fd(), process.console.as_ref(), signals, None)?;
    Ok(exit.shell_code())
}

fn request(global: &Global, args: &ArgMatches) -> Result<ExecRequest, CliError> {
    let id: ContainerId = args.get_one::<String>("id").map_or("", String::as_str).parse()?;
    let record = global.store.load(&id)?;
    let dir = global.store.dir(&id);
    match record.status(&dir)? {
        Status::Paused if !args.get_flag("ignore-paused") => return Err(CliError::ExecPaused),
        Status::Stopped | Status::Creating => return Err(CliError::ExecStopped),
        Status::Created | Status::Running | Status::Paused => {}
    }
    let (Some(pidfd), Some(pid)) = (record.process()?, Pid::from_raw(record.pid)) else {
        return Err(CliError::ExecStopped);
    };
    let loaded = spec::load(&dir)?;
    let profile = loaded
        .spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let process = process(args, &loaded.spec)?;
    Ok(ExecRequest {
        id: record.id.clone(),
        pid,
        pidfd,
        cgroup: cgroup(&record, args)?,
        stdio: if process.terminal().unwrap_or(false) {
            Stdio::Terminal
        } else {
            Stdio::Inherit
        },
        process,
        state: record.state(Status::Running),
        seccomp: profile.map(seccomp::compile).transpose()?,
        preserve_fds: launch::preserve_fds(args, 0)?,
        no_new_keyring: false,
    })
}

/// `--cgroup cpu,cpuacct:sub` for some hierarchies, `--cgroup sub` for all; below the container's own.
fn cgroup(record: &Record, args: &ArgMatches) -> Result<Cgroup, CliError> {
    let mut cgroup = record.cgroup.clone();
    for given in args.get_many::<String>("cgroup").into_iter().flatten() {
        let (controllers, path) = match given.split_once(':') {
            Some((controllers, path)) => (Some(controllers), path),
            None => (None, given.as_str()),
        };
        cgroup = cgroup.joined_below(controllers, Path::new(path))?;
    }
    Ok(cgroup)
}

/// From the file, with the capabilities and the score of the container where it has none (as with runc), or the
/// container's own with what the flags say instead.
fn process(args: &ArgMatches, spec: &Spec) -> Result<Process, CliError> {
    if let Some(path) = args.get_one::<PathBuf>("process") {
        let mut process = spec::load_process(path)?;
        if let Some(own) = spec.process() {
            if process.capabilities().is_none() {
                process.set_capabilities(own.capabilities().clone());
            }
            if process.oom_score_adj().is_none() {
                process.set_oom_score_adj(own.oom_score_adj());
            }
        }
        return Ok(process);
    }
    let mut process = spec.process().clone().unwrap_or_default();
    let command: Vec<String> = args.get_many("command").into_iter().flatten().cloned().collect();
    if command.is_empty() {
        return Err(CliError::ExecNothing);
    }
    process
        .set_args(Some(command))
        .set_terminal(Some(args.get_flag("tty")));
    if let Some(cwd) = args.get_one::<PathBuf>("cwd") {
        process.set_cwd(cwd.clone());
    }
    if let Some(label) = args.get_one::<String>("process-label") {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = args.get_one::<String>("apparmor") {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if args.get_flag("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    let env = args.get_many::<String>("env").into_iter().flatten().cloned();
    let env = process.env().iter().flatten().cloned().chain(env).collect();
    process.set_env(Some(env));
    set_user(&mut process, args)?;
    add_capabilities(&mut process, args)?;
    Ok(process)
}

fn set_user(process: &mut Process, args: &ArgMatches) -> Result<(), CliError> {
    let mut user = process.user().clone();
    if let Some(given) = args.get_one::<String>("user") {
        let (uid, gid) = given
            .split_once(':')
            .map_or((given.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        user.set_uid(id("--user", uid)?);
        if let Some(gid) = gid {
            user.set_gid(id("--user", gid)?);
        }
    }
    let added = args.get_many::<String>("additional-gids").into_iter().flatten();
    let added = added
        .map(|gid| id("--additional-gids", gid))
        .collect::<Result<Vec<_>, _>>()?;
    let gids = user
        .additional_gids()
        .iter()
        .flatten()
        .copied()
        .chain(added)
        .collect();
    user.set_additional_gids(Some(gids));
    process.set_user(user);
    Ok(())
}

/// Digits only, and a number that is an id: what is read as another number than was meant makes the process somebody
/// else's (CVE-2026-30892).
fn id(flag: &'static str, text: &str) -> Result<u32, CliError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse().ok().filter(|id| digits && *id != u32::MAX);
    parsed.ok_or_else(|| CliError::ExecId {
        flag,
        value: text.to_owned(),
    })
}

/// Added to what the process has and may make effective, not to what it passes on (CVE-2022-29162).
fn add_capabilities(process: &mut Process, args: &ArgMatches) -> Result<(), CliError> {
    let names = args.get_many::<String>("cap").into_iter().flatten();
    let parse = |name: &String| {
        let upper = name.to_ascii_uppercase();
        Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper))
            .map_err(|_| CliError::ExecCapability(name.clone()))
    };
    let added = names.map(parse).collect::<Result<Vec<_>, _>>()?;
    if added.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
    let with = |set: &Option<Capabilities>| {
        Some(
            set.iter()
                .flatten()
                .copied()
                .chain(added.iter().copied())
                .collect(),
        )
    };
    let (bounding, effective, permitted) = (
        with(sets.bounding()),
        with(sets.effective()),
        with(sets.permitted()),
    );
    sets.set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}

/// Not the parser's default, which is a list of its own.
fn no_capabilities() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None)
        .set_effective(None)
        .set_permitted(None)
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_exactly_decimal() {
        assert_eq!(id("--user", "1000").unwrap(), 1000);
        for bad in [
            "",
            "0x10",
            " 5",
            "5 ",
            "-1",
            "+5",
            "4294967295",
            "99999999999",
            "root",
        ] {
            assert!(id("--user", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn everything_after_the_name_is_the_command() {
        let matches = command()
            .try_get_matches_from(["exec", "-e", "A=b", "c1", "sh", "-c", "ls -d", "--tty"])
            .unwrap();
        let words: Vec<&String> = matches.get_many("command").unwrap().collect();
        assert_eq!(words, ["sh", "-c", "ls -d", "--tty"]);
        assert!(!matches.get_flag("tty"));
    }

    #[test]
    fn added_capabilities_are_not_inheritable() {
        let matches = command()
            .try_get_matches_from(["exec", "--cap", "CAP_KILL", "-c", "net_raw", "c1", "sh"])
            .unwrap();
        let mut process = Process::default();
        process.set_capabilities(None);
        add_capabilities(&mut process, &matches).unwrap();
        let sets = process.capabilities().clone().unwrap();
        assert_eq!(sets.effective().as_ref().unwrap().len(), 2);
        assert!(sets.inheritable().is_none() && sets.ambient().is_none());
    }
}
