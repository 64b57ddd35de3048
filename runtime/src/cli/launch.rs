//! What `create` and `run` have in common: from flags to a container whose record is written.

use super::signals::Ending;
use super::{CliError, Global, hand_over, notify_socket};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use coracle_linux::pidfd::Pid;
use coracle_runtime::spec::Loaded;
use coracle_runtime::state::Reservation;
use coracle_runtime::{
    Container, ContainerId, CreateOptions, CreateRequest, Creating, Gate, Plan, RootSource, Stdio, plan,
    root_path, spawn, spec,
};
use oci_spec::runtime::Spec;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::task::Poll;

/// Flags of `create` that `run` has too.
pub(super) fn args(command: Command) -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name);
    let path = |name| flag(name).value_name("PATH").value_parser(value_parser!(PathBuf));
    command.args([
        Arg::new("id")
            .value_name("CONTAINER")
            .required(true)
            .help("Name of the container"),
        path("bundle")
            .short('b')
            .help("The bundle's directory; default: the current one"),
        path("console-socket").help("Send the terminal's other end to this unix socket"),
        path("pidfd-socket").help("Send a descriptor of the first process to this unix socket"),
        path("pid-file").help("Write the id of the first process to this file"),
        flag("no-pivot")
            .action(ArgAction::SetTrue)
            .help("Not supported yet"),
        flag("no-new-keyring")
            .action(ArgAction::SetTrue)
            .help("Keep the caller's session keyring"),
        flag("preserve-fds")
            .value_name("N")
            .value_parser(value_parser!(u32))
            .help("Pass descriptors 3 to 2+N to the container"),
    ])
}

/// A request that was checked, and the name it has taken.
pub(super) struct Launch {
    plan: Plan,
    reservation: Reservation,
    terminal: bool,
    publication: Publication,
}

/// A container, and its name to be given back should what follows fail.
pub(super) struct Launched {
    pub(super) container: Container,
    pub(super) reservation: Reservation,
    pub(super) terminal: bool,
}

impl Launch {
    /// Reads and checks everything; what is made so far is the container's directory.
    pub(super) fn plan(
        global: &Global,
        args: &ArgMatches,
        detached: bool,
        gated: bool,
    ) -> Result<Self, CliError> {
        let id: ContainerId = args.get_one::<String>("id").map_or("", String::as_str).parse()?;
        if args.get_flag("no-pivot") {
            return Err(CliError::NoPivot);
        }
        let path = |name: &str| args.get_one::<PathBuf>(name).cloned();
        let (bundle, mut loaded) = load(global, path("bundle"))?;
        let terminal = wants_terminal(&loaded.spec);
        let console_socket = path("console-socket");
        check_terminal(terminal, detached, console_socket.is_some())?;
        let rootfs = root_path(&loaded.spec, &bundle)?;
        let own_pid_namespace = has_own_pid_namespace(&loaded.spec);
        let preserve_fds = preserve_fds(args, pass_listen_fds(&mut loaded.spec))?;
        let reservation = global.store.reserve(&id)?;
        reservation.write_spec(&loaded.text)?;
        notify_socket::plan(&global.store, &id, &mut loaded.spec)?;
        let options = CreateOptions {
            gate: gate(&reservation, gated)?,
            defers_lookup: false,
            mark: Some(reservation.mark()),
            no_new_keyring: args.get_flag("no-new-keyring"),
            preserve_fds,
        };
        let plan = plan(CreateRequest {
            id,
            bundle,
            spec: loaded.spec,
            root: RootSource::Path(rootfs.clone()),
            copied_up: Vec::new(),
            detached: Vec::new(),
            stdio: if terminal { Stdio::Terminal } else { Stdio::Inherit },
            join: Vec::new(),
            options,
        })?;
        Ok(Self {
            plan,
            reservation,
            terminal,
            publication: Publication {
                rootfs,
                own_pid_namespace,
                console_socket,
                pidfd_socket: path("pidfd-socket"),
                pid_file: path("pid-file"),
            },
        })
    }

    /// Creates the container and tells of it whom it concerns. When that fails everything is undone.
    pub(super) fn create(self, global: &Global, ending: Option<&Ending>) -> Result<Launched, CliError> {
        let creating = spawn(self.plan)?;
        let mut container = match ending {
            Some(ending) => finish(creating, ending)?,
            None => creating.finish()?,
        };
        for warning in &container.warnings {
            global.log.warn(warning);
        }
        let published = self.publication.publish(&mut container, &self.reservation);
        if let Err(error) = published {
            super::delete::end(&container, &global.log);
            return Err(error);
        }
        Ok(Launched {
            container,
            reservation: self.reservation,
            terminal: self.terminal,
        })
    }
}

/// Unless a request to end comes first: then it is undone.
fn finish(mut creating: Creating, ending: &Ending) -> Result<Container, CliError> {
    loop {
        if let Poll::Ready(container) = creating.step()? {
            return Ok(container);
        }
        if let Some(signal) = ending.wait_readable(creating.as_fd(), None)? {
            return Err(CliError::Interrupted(signal.as_str()));
        }
    }
}

/// What is told of a container once it exists, and where.
struct Publication {
    rootfs: PathBuf,
    own_pid_namespace: bool,
    console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
}

impl Publication {
    /// Writes its record, hands its descriptors over, and writes its pid file.
    fn publish(self, container: &mut Container, reservation: &Reservation) -> Result<(), CliError> {
        reservation.write(&container.record(self.rootfs, self.own_pid_namespace)?)?;
        container.recorded()?;
        if let (Some(socket), Some(console)) = (&self.console_socket, &container.console) {
            hand_over::send(socket, b"/dev/console", console.as_fd())?;
        }
        if let Some(socket) = &self.pidfd_socket {
            hand_over::send(socket, b"pidfd", container.pidfd.as_fd())?;
        }
        match &self.pid_file {
            Some(path) => write_pid_file(path, container.pid),
            None => Ok(()),
        }
    }
}

/// The bundle's directory, absolute, and its specification.
fn load(global: &Global, given: Option<PathBuf>) -> Result<(PathBuf, Loaded), CliError> {
    let given = given.unwrap_or_else(|| PathBuf::from("."));
    let bundle = given
        .canonicalize()
        .map_err(|source| CliError::Path { path: given, source })?;
    let loaded = spec::load(&bundle)?;
    for warning in &loaded.warnings {
        global.log.warn(warning);
    }
    Ok((bundle, loaded))
}

fn wants_terminal(spec: &Spec) -> bool {
    let process = spec.process().as_ref();
    process.and_then(|process| process.terminal()).unwrap_or(false)
}

fn gate(reservation: &Reservation, gated: bool) -> Result<Gate, CliError> {
    match gated {
        true => Ok(Gate::Fifo {
            path: reservation.make_fifo()?,
            last_words: reservation.last_words(),
        }),
        false => Ok(Gate::Maker),
    }
}

/// The rules and the words of runc.
pub(super) fn check_terminal(terminal: bool, detached: bool, has_socket: bool) -> Result<(), CliError> {
    if detached && terminal && !has_socket {
        return Err(CliError::TerminalWithoutSocket);
    }
    if has_socket && !(detached && terminal) {
        return Err(CliError::SocketWithoutTerminal);
    }
    Ok(())
}

fn has_own_pid_namespace(spec: &Spec) -> bool {
    let namespaces = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default();
    let is_pid = |kind| kind == oci_spec::runtime::LinuxNamespaceType::Pid;
    namespaces
        .iter()
        .any(|namespace| is_pid(namespace.typ()) && namespace.path().is_none())
}

/// What `--preserve-fds` asks for and, as systemd's socket activation wants it, LISTEN_FDS of the environment.
pub(super) fn preserve_fds(args: &ArgMatches, listen_fds: u32) -> Result<u32, CliError> {
    let count = args
        .get_one::<u32>("preserve-fds")
        .copied()
        .unwrap_or(0)
        .saturating_add(listen_fds);
    let is_open = |fd: &u32| Path::new("/proc/self/fd").join(fd.to_string()).exists();
    match (3..count.saturating_add(3)).find(|fd| !is_open(fd)) {
        Some(missing) => Err(CliError::PreserveFds { count, missing }),
        None => Ok(count),
    }
}

/// Sockets passed by systemd go on to the container, where the first process is number 1. They are meant for the process
/// that LISTEN_PID names: in any other one the variables are only left over (sd_listen_fds(3)).
fn pass_listen_fds(spec: &mut Spec) -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let is_for_us = number("LISTEN_PID") == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|_| is_for_us).unwrap_or(0);
    if let Some(process) = spec.process_mut().as_mut().filter(|_| count > 0) {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
        process.set_env(Some(env));
    }
    count
}

pub(super) fn write_pid_file(path: &Path, pid: Pid) -> Result<(), CliError> {
    let text = pid.as_raw_nonzero().to_string();
    let written = coracle_runtime::state::write_file(path, text.as_bytes());
    written.map_err(|source| CliError::PidFile {
        path: path.to_owned(),
        source,
    })
}
