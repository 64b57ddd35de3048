//! The container's first process, from the clone to the execve; the order of its steps and why.
//!
//! It is a copy of a process with one thread, so it may do what any program may. It never returns into the maker's code.

use super::chain;
use super::gate::Closed;
use super::message::{FromChild, ToChild, hand_over_listener};
use super::namespaces::Joined;
use crate::cgroup::{Cgroup, CgroupError, Join};
use crate::hooks::{HookError, HookRun};
use crate::identity::{self, IdentityError};
use crate::payload::{self, LookupError};
use crate::plan::{Plan, Stdio};
use crate::rootfs::{Prepared, Root, RootfsError, console, sysctl};
use crate::state::{Status, oci_state};
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::netlink::NetlinkError;
use coracle_linux::pidfd::{self, Pid, Signal};
use coracle_linux::process::{self, Clone};
use coracle_linux::{link, prctl, signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::retry_on_intr;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

/// A step of the first process that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChildError {
    #[error("{doing}")]
    Step { doing: &'static str, source: io::Error },
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("setting the loopback interface up")]
    Loopback(#[source] NetlinkError),
    #[error("exec {program:?}")]
    Exec { program: String, source: io::Error },
}

/// Names a step in the errors of its calls.
fn step(doing: &'static str) -> impl Fn(io::Error) -> ChildError {
    move |source| ChildError::Step { doing, source }
}

/// What the first process is born with.
pub(super) struct Inherited<'a> {
    pub(super) plan: Plan,
    pub(super) prepared: Prepared,
    pub(super) cgroup: &'a Cgroup,
    pub(super) join: &'a Join,
    pub(super) socket: BorrowedFd<'a>,
    /// The maker's pidfd.
    pub(super) maker: BorrowedFd<'a>,
}

/// The process between maker and first process: joins namespaces, clones, and is done.
pub(super) fn intermediate(inherited: Inherited<'_>, joined: &Joined) -> u8 {
    let socket = inherited.socket;
    let new = super::in_clone(inherited.plan.namespaces.new);
    let made = joined
        .enter()
        .and_then(|()| joined.enter_pid_namespace())
        .map_err(step("joining namespaces"));
    let made = made.and_then(|()| {
        let how = Clone {
            namespaces: new,
            cgroup: None,
            sibling: true,
        };
        process::clone(&how, || main(inherited, None)).map_err(step("making the container's first process"))
    });
    let sent = match made {
        Ok(child) => FromChild::Cloned(child.pid, child.pidfd).send(socket),
        Err(error) => FromChild::Failed(chain(&error)).send(socket),
    };
    u8::from(sent.is_err())
}

/// The first process. What it returns is its exit code, and means that there is no payload.
pub(super) fn main(inherited: Inherited<'_>, joined: Option<&Joined>) -> u8 {
    let socket = inherited.socket;
    match create(inherited, joined) {
        Ok(created) => created.start(),
        Err(error) => {
            let _ = FromChild::Failed(chain(&error)).send(socket);
        }
    }
    1
}

/// All that is left to do after the gate.
struct Created<'a> {
    plan: Plan,
    gate: Closed<'a>,
    program: CString,
    env: Vec<CString>,
    pid: Option<Pid>,
}

fn create<'a>(inherited: Inherited<'a>, joined: Option<&Joined>) -> Result<Created<'a>, ChildError> {
    let Inherited {
        mut plan,
        prepared,
        cgroup,
        join,
        socket,
        maker,
    } = inherited;
    signal::restore_defaults().map_err(step("unblocking signals"))?;
    // Modes are meant as they are given, until the payload's own mask is set.
    rustix::process::umask(Mode::empty());
    if plan.namespaces.first_process_waits() {
        wait_for_go(socket, maker)?;
    }
    // On cgroup v1 a thread that moves itself alone waits for no grace period; on v2 it was born there.
    join.enter()?;
    // Before anything of the container can look at this process (CVE-2016-9962), but after its maker has written to
    // files in /proc that belong to the host's root from now on. The payload's execve ends it.
    prctl::set_dumpable(false).map_err(step("hiding from ptrace"))?;
    if let Some(joined) = joined {
        joined.enter().map_err(step("joining namespaces"))?;
    }
    complete_namespaces(&plan)?;
    if let Some(warning) = identity::before_root(&plan.identity)? {
        FromChild::Warning(warning)
            .send(socket)
            .map_err(step("reporting a warning"))?;
    }
    if plan.namespaces.has_user() {
        payload::become_root_of_user_namespace().map_err(step("becoming root of the user namespace"))?;
    }
    // Its maker's death is its own, until it is ready. (Set after the change of user, which clears it.)
    prctl::set_parent_death_signal(Some(Signal::KILL)).map_err(step("asking for the maker's death"))?;
    end_if_orphaned(maker)?;
    rustix::process::setsid().map_err(|errno| step("starting a session")(errno.into()))?;
    if !plan.options.no_new_keyring {
        payload::join_keyring(plan.id.as_str()).map_err(step("making its session keyring"))?;
    }
    let gate = Closed::take(&plan.options.gate, socket).map_err(step("opening the exec fifo"))?;
    let pid = pid_on_host();
    let assembled = Root::assemble(&plan, cgroup, prepared)?;
    take_streams(&mut plan, assembled.terminal, socket)?;
    run_create_hooks(&plan, pid, socket)?;
    set_names(&plan)?;
    assembled.root.pivot()?;
    sysctl::set(&plan.sysctls)?;
    assembled.root.finish(&plan)?;
    let env = payload::with_home(&plan.process.env, plan.process.uid);
    payload::give_streams(plan.process.uid);
    identity::apply(
        &plan.identity,
        plan.seccomp.as_ref(),
        &plan.process.cwd,
        &mut |listener| hand_over_listener(listener, socket),
    )?;
    let program = payload::find_program(&plan.process.args[0], &env)?;
    // While its number is still its own: from here on nothing that owns a descriptor may be dropped.
    drop(assembled.root);
    get_ready(&plan, &gate, socket)?;
    Ok(Created {
        plan,
        gate,
        program,
        env,
        pid,
    })
}

impl Created<'_> {
    fn start(self) {
        let Self {
            plan,
            gate,
            program,
            env,
            pid,
        } = self;
        // Without a gate there is nobody to tell.
        let Ok(opened) = gate.wait() else {
            return std::mem::forget(plan);
        };
        let error = match execute(&plan, &program, &env, pid) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        opened.fail(&chain(&error));
        // What it owned is closed already (close_all_but), and the process ends here.
        std::mem::forget(plan);
    }
}

fn execute(plan: &Plan, program: &CStr, env: &[CString], pid: Option<Pid>) -> Result<Infallible, ChildError> {
    let hooks = &plan.hooks.start_container;
    if !hooks.is_empty() {
        HookRun::start(hooks.clone(), state(plan, Status::Created, pid))?.finish()?;
    }
    process::execve(program, &plan.process.args, env).map_err(|source| ChildError::Exec {
        program: program.to_string_lossy().into_owned(),
        source,
    })
}

/// The signal does not come when the maker died before it was asked for. (getppid(2) does not tell: in a PID namespace of
/// its own a process has no parent, and the socket stays open as long as this process has its maker's end of it.)
fn end_if_orphaned(maker: BorrowedFd<'_>) -> Result<(), ChildError> {
    let ended = pidfd::wait_end(maker, Some(Duration::ZERO));
    match ended.map_err(step("looking for the maker"))? {
        true => Err(step("looking for the maker")(io::ErrorKind::BrokenPipe.into())),
        false => Ok(()),
    }
}

/// Until its maker knows of this process and has mapped its ids. A maker that has died will not say anything, and as above
/// the socket does not tell.
fn wait_for_go(socket: BorrowedFd<'_>, maker: BorrowedFd<'_>) -> Result<(), ChildError> {
    let failed = step("waiting for the maker");
    let mut ready = [
        PollFd::from_borrowed_fd(socket, PollFlags::IN),
        PollFd::from_borrowed_fd(maker, PollFlags::IN),
    ];
    retry_on_intr(|| poll(&mut ready, None)).map_err(|errno| failed(errno.into()))?;
    if ready[0].revents().is_empty() {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    }
    ToChild::Go.expect(socket).map_err(failed)
}

/// What is left of new namespaces: the loopback interface, and those that a clone would make too early. The root of a cgroup namespace is the cgroup one is in, and the
/// offsets of a time namespace are written before anybody enters it.
fn complete_namespaces(plan: &Plan) -> Result<(), ChildError> {
    if plan.namespaces.new.contains(Namespaces::NET) {
        // Of a new network namespace; a joined one is its maker's to set up. runc does the same.
        link::lo_up().map_err(ChildError::Loopback)?;
    }
    if plan.namespaces.new.contains(Namespaces::CGROUP) {
        namespace::unshare(Namespaces::CGROUP).map_err(step("making the cgroup namespace"))?;
    }
    if plan.namespaces.new.contains(Namespaces::TIME) {
        enter_time_namespace(plan.namespaces.time_offsets.as_deref())
            .map_err(step("making the time namespace"))?;
    }
    Ok(())
}

fn enter_time_namespace(offsets: Option<&str>) -> io::Result<()> {
    namespace::unshare(Namespaces::TIME)?;
    if let Some(offsets) = offsets {
        std::fs::write("/proc/self/timens_offsets", offsets)?;
    }
    let namespace = namespace::open(Path::new("/proc/self/ns/time_for_children"))?;
    namespace::enter(namespace.as_fd(), Namespaces::TIME)
}

/// Its id as its maker sees it, which is what hooks are told: read through the host's procfs while that is in sight.
fn pid_on_host() -> Option<Pid> {
    let own = std::fs::read_link("/proc/self").ok()?;
    own.to_str()?.parse().ok().and_then(Pid::from_raw)
}

fn take_streams(
    plan: &mut Plan,
    terminal: Option<console::Terminal>,
    socket: BorrowedFd<'_>,
) -> Result<(), ChildError> {
    let failed = step("setting up the standard streams");
    if let Some(console::Terminal { master, slave }) = terminal {
        FromChild::Console(master)
            .send(socket)
            .map_err(step("sending the terminal"))?;
        rustix::process::ioctl_tiocsctty(&slave).map_err(|errno| failed(errno.into()))?;
        return payload::be_streams([&slave, &slave, &slave]).map_err(failed);
    }
    match std::mem::replace(&mut plan.stdio, Stdio::Inherit) {
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => payload::be_streams([&stdin, &stdout, &stderr]).map_err(failed),
        Stdio::Inherit | Stdio::Terminal => Ok(()),
    }
}

fn run_create_hooks(plan: &Plan, pid: Option<Pid>, socket: BorrowedFd<'_>) -> Result<(), ChildError> {
    if !(plan.hooks.prestart.is_empty() && plan.hooks.create_runtime.is_empty()) {
        FromChild::RunHooks
            .send(socket)
            .map_err(step("asking for the hooks of the runtime"))?;
        ToChild::HooksDone
            .expect(socket)
            .map_err(step("waiting for the hooks of the runtime"))?;
    }
    let hooks = &plan.hooks.create_container;
    if !hooks.is_empty() {
        HookRun::start(hooks.clone(), state(plan, Status::Creating, pid))?.finish()?;
    }
    Ok(())
}

fn set_names(plan: &Plan) -> Result<(), ChildError> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|errno| step("setting the host name")(errno.into()))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .map_err(|errno| step("setting the domain name")(errno.into()))?;
    }
    Ok(())
}

/// Nothing of the maker's stays open beside what the payload is to have (CVE-2024-21626) and the gate.
fn get_ready(plan: &Plan, gate: &Closed<'_>, socket: BorrowedFd<'_>) -> Result<(), ChildError> {
    let preserved = plan.options.preserve_fds;
    process::keep_on_exec(preserved).map_err(step("keeping the descriptors of preserve-fds"))?;
    prctl::set_parent_death_signal(None).map_err(step("outliving the maker"))?;
    FromChild::Ready
        .send(socket)
        .map_err(step("reporting that it is ready"))?;
    process::close_all_but(&gate.fds(), 3 + preserved).map_err(step("closing descriptors"))
}

fn state(plan: &Plan, status: Status, pid: Option<Pid>) -> Vec<u8> {
    oci_state(&plan.facts(), status, pid)
}
