//! The container's first process, from the clone to the execve; the order of its steps and why.
//!
//! It is a copy of a process with one thread, so it may do what any program may. It never returns into the maker's code.

use super::gate::Closed;
use super::namespaces::{self, Joined};
use crate::hooks::HookRun;
use crate::identity::{self, Confine};
use crate::payload::{
    self, Execute, FromMaker, LastWords, LookupError, PayloadError, ToMaker, hand_over_listener, step,
};
use crate::plan::{Plan, Stdio};
use crate::rootfs::{Prepared, Root, sysctl};
use crate::state::{Facts, Status};
use coracle_linux::cgroup::{Cgroup, Join};
use coracle_linux::namespace::Namespaces;
use coracle_linux::pidfd::{self, Pid, Signal};
use coracle_linux::{prctl, process, signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::{Errno, retry_on_intr};
use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// What the first process is born with.
pub(super) struct Inherited<'a> {
    pub(super) plan: Plan,
    pub(super) prepared: Prepared,
    pub(super) fifo: Option<OwnedFd>,
    pub(super) cgroup: &'a Cgroup,
    pub(super) join: &'a Join,
    pub(super) socket: BorrowedFd<'a>,
    pub(super) words: &'a LastWords,
    /// The maker's pidfd.
    pub(super) maker: BorrowedFd<'a>,
}

/// The process in between: its whole life. Returns its exit code.
pub(super) fn between(inherited: Inherited<'_>, joined: &Joined) -> u8 {
    let (socket, new) = (
        inherited.socket,
        namespaces::in_clone(inherited.plan.namespaces.new),
    );
    let join = || {
        let entered = joined.enter().and_then(|()| joined.enter_pid_namespace());
        entered.map_err(step("joining namespaces"))
    };
    payload::live_between(socket, new, join, |()| main(inherited, None))
}

/// The first process: its whole life. Returns, with the exit code, only when the payload could not be executed.
pub(super) fn main(inherited: Inherited<'_>, joined: Option<&Joined>) -> u8 {
    let (socket, words) = (inherited.socket, inherited.words);
    match create(inherited, joined) {
        Ok(created) => created.start(),
        Err(PayloadError::Said) => {}
        Err(error) => {
            let text = error.chain();
            words.say(&text);
            let _ = ToMaker::Failed(text).send(socket);
        }
    }
    1
}

/// All that is left to do after the gate.
struct Created<'a> {
    plan: Plan,
    gate: Closed<'a>,
    program: Result<CString, LookupError>,
    env: Vec<CString>,
    pid: Option<Pid>,
    words: &'a LastWords,
    /// Unless the filter is loaded.
    confine: Option<Confine>,
}

/// When the filter is loaded: as late as can be, since it may deny whatever the payload itself does not need.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FilterBefore {
    /// Its listener goes to an agent through the maker.
    Ready,
    /// Without no_new_privs it takes CAP_SYS_ADMIN to load it. Where the processes of others can look at this one, it does
    /// not wait at the gate with that.
    Gate,
    Exec,
}

impl FilterBefore {
    fn of(plan: &Plan) -> Option<Self> {
        let filter = plan.seccomp.as_ref()?;
        let unseen = plan.namespaces.new.contains(Namespaces::PID);
        Some(match plan.identity.no_new_privileges() || unseen {
            _ if filter.listener.is_some() => Self::Ready,
            true => Self::Exec,
            false => Self::Gate,
        })
    }
}

fn create<'a>(inherited: Inherited<'a>, joined: Option<&Joined>) -> Result<Created<'a>, PayloadError> {
    let Inherited {
        mut plan,
        prepared,
        fifo,
        cgroup,
        join,
        socket,
        words,
        maker,
    } = inherited;
    reset_signals_and_umask()?;
    if plan.namespaces.first_process_waits() {
        wait_for_go(socket, maker)?;
    }
    // On cgroup v1 a thread that moves itself alone waits for no grace period; on v2 it was born there.
    join.enter()?;
    payload::run_on_any_processor();
    // Before anything of the container can look at this process (CVE-2016-9962), but after its maker has written to
    // files in /proc that belong to the host's root from now on. The payload's execve ends it.
    prctl::set_dumpable(false).map_err(step("hiding from ptrace"))?;
    enter_namespaces(&plan, joined, socket)?;
    // Set after the change of user, which clears it.
    die_with(maker)?;
    payload::begin_session()?;
    if !plan.options.no_new_keyring {
        payload::join_keyring(plan.id.as_str())?;
    }
    let gate = Closed::take(fifo, socket).map_err(step("opening the exec fifo"))?;
    let pid = pid_on_host();
    let root = enter_root(&mut plan, cgroup, prepared, pid, socket)?;
    let env = payload::with_home(&plan.process.env, plan.process.uid);
    let confine = become_the_user(&plan)?;
    let program = match payload::find_program(&plan.process.args[0], &env) {
        Err(error) if !plan.options.defers_lookup => return Err(error.into()),
        found => found,
    };
    // While its number is still its own: from here on nothing that owns a descriptor may be dropped.
    drop(root);
    let place = FilterBefore::of(&plan);
    let load = |wanted| match place == Some(wanted) {
        true => load_filter(&plan, &confine, socket, words),
        false => Ok(()),
    };
    let_the_maker_go(&plan, &gate, socket)?;
    load(FilterBefore::Ready)?;
    report_ready(&gate, socket)?;
    load(FilterBefore::Gate)?;
    Ok(Created {
        gate,
        program,
        env,
        pid,
        words,
        confine: (place == Some(FilterBefore::Exec)).then_some(confine),
        plan,
    })
}

impl Created<'_> {
    fn start(self) {
        match self.gate.wait() {
            Ok(opened) => {
                let Err(error) = self.execute();
                if !matches!(error, PayloadError::Said) {
                    let text = error.chain();
                    self.words.say(&text);
                    opened.fail(&text);
                }
            }
            Err(source) => self.words.say(&step("waiting to be started")(source).chain()),
        }
        // What it owned is closed already (close_all_but), and the process ends here.
        std::mem::forget(self);
    }

    fn execute(&self) -> Result<Infallible, PayloadError> {
        let plan = &self.plan;
        let program = self.program.as_ref().map_err(LookupError::clone)?;
        let hooks = &plan.hooks.start_container;
        if !hooks.is_empty() {
            HookRun::start(hooks.clone(), state(plan, Status::Created, self.pid))?.finish()?;
        }
        let execute = Execute::prepare(program, &plan.process.args, &self.env, self.words);
        let Some(filter) = &plan.seccomp else {
            return execute.run();
        };
        if let Some(confine) = &self.confine {
            payload::confine(confine, filter, self.words, |_| Ok(()))?;
        }
        execute.run_filtered()
    }
}

fn load_filter(
    plan: &Plan,
    confine: &Confine,
    socket: BorrowedFd<'_>,
    words: &LastWords,
) -> Result<(), PayloadError> {
    plan.seccomp.as_ref().map_or(Ok(()), |filter| {
        payload::confine(confine, filter, words, |listener| {
            hand_over_listener(listener, socket)
        })
    })
}

fn reset_signals_and_umask() -> Result<(), PayloadError> {
    signal::restore_defaults().map_err(step("unblocking signals"))?;
    // Modes are taken as they are given, until the payload's own mask is set.
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// Until its maker knows of this process and has mapped its ids. A maker that has died will not say anything, and the
/// socket does not tell (see [`die_with`]).
fn wait_for_go(socket: BorrowedFd<'_>, maker: BorrowedFd<'_>) -> Result<(), PayloadError> {
    let failed = step::<io::Error>("waiting for the maker");
    let mut ready = [
        PollFd::from_borrowed_fd(socket, PollFlags::IN),
        PollFd::from_borrowed_fd(maker, PollFlags::IN),
    ];
    retry_on_intr(|| poll(&mut ready, None)).map_err(|errno| failed(errno.into()))?;
    if ready[0].revents().is_empty() {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    }
    FromMaker::Go.expect(socket).map_err(failed)
}

fn enter_namespaces(
    plan: &Plan,
    joined: Option<&Joined>,
    socket: BorrowedFd<'_>,
) -> Result<(), PayloadError> {
    if let Some(joined) = joined {
        joined.enter().map_err(step("joining namespaces"))?;
    }
    namespaces::complete(&plan.namespaces)?;
    if let Some(warning) = identity::before_root(&plan.identity)? {
        ToMaker::Warning(warning)
            .send(socket)
            .map_err(step("reporting a warning"))?;
    }
    if plan.namespaces.has_user() {
        payload::become_root_of_user_namespace()?;
    }
    Ok(())
}

/// Until it is ready, it dies with its maker. The signal is not sent when the maker had died before it was asked for.
/// (getppid(2) does not tell: in a PID namespace of its own a process has no parent, and the socket stays open as long as
/// this process has its maker's end of it.)
fn die_with(maker: BorrowedFd<'_>) -> Result<(), PayloadError> {
    prctl::set_parent_death_signal(Some(Signal::KILL)).map_err(step("asking for the maker's death"))?;
    let ended = pidfd::wait_end(maker, Some(Duration::ZERO));
    match ended.map_err(step("looking for the maker"))? {
        true => Err(step("looking for the maker")(io::Error::from(
            io::ErrorKind::BrokenPipe,
        ))),
        false => Ok(()),
    }
}

/// Its id as its maker sees it, for the state that hooks are given: read from the host's procfs while that can be reached.
fn pid_on_host() -> Option<Pid> {
    let own = std::fs::read_link("/proc/self").ok()?;
    own.to_str()?.parse().ok().and_then(Pid::from_raw)
}

/// From the host's file system to the container's.
fn enter_root(
    plan: &mut Plan,
    cgroup: &Cgroup,
    prepared: Prepared,
    pid: Option<Pid>,
    socket: BorrowedFd<'_>,
) -> Result<Root, PayloadError> {
    let assembled = Root::assemble(plan, cgroup, prepared)?;
    let terminal = assembled.terminal;
    let has_terminal = terminal.is_some();
    let stdio = std::mem::replace(&mut plan.stdio, Stdio::Inherit);
    payload::take_streams(stdio, terminal, socket)?;
    if has_terminal {
        payload::control_terminal()?;
    }
    run_create_hooks(plan, pid, socket)?;
    set_names(plan)?;
    assembled.root.ensure_working_directory(&plan.process.cwd)?;
    assembled.root.pivot()?;
    sysctl::set(&plan.sysctls)?;
    assembled.root.finish(plan)?;
    Ok(assembled.root)
}

fn run_create_hooks(plan: &Plan, pid: Option<Pid>, socket: BorrowedFd<'_>) -> Result<(), PayloadError> {
    if !(plan.hooks.prestart.is_empty() && plan.hooks.create_runtime.is_empty()) {
        ToMaker::RunHooks
            .send(socket)
            .map_err(step("asking for the hooks of the runtime"))?;
        FromMaker::HooksDone
            .expect(socket)
            .map_err(step("waiting for the hooks of the runtime"))?;
    }
    let hooks = &plan.hooks.create_container;
    if !hooks.is_empty() {
        HookRun::start(hooks.clone(), state(plan, Status::Creating, pid))?.finish()?;
    }
    Ok(())
}

fn set_names(plan: &Plan) -> Result<(), PayloadError> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(step::<Errno>("setting the host name"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(step::<Errno>("setting the domain name"))?;
    }
    Ok(())
}

/// Gives the process its identity.
fn become_the_user(plan: &Plan) -> Result<Confine, PayloadError> {
    payload::give_streams(plan.process.uid);
    let prepared = identity::prepare(&plan.identity, &plan.process.cwd)?;
    Ok(identity::assume(
        &plan.identity,
        &prepared,
        plan.seccomp.as_ref(),
    )?)
}

/// Closes every descriptor of the maker's but the gate and those that the payload is to have (CVE-2024-21626). From here on
/// the end of the socket tells that the maker has died.
fn let_the_maker_go(plan: &Plan, gate: &Closed<'_>, socket: BorrowedFd<'_>) -> Result<(), PayloadError> {
    let preserved = plan.options.preserve_fds;
    process::keep_on_exec(preserved).map_err(step("keeping the descriptors of preserve-fds"))?;
    prctl::set_parent_death_signal(None).map_err(step("outliving the maker"))?;
    let mut kept = gate.fds();
    kept.push(socket);
    process::close_all_but(&kept, 3 + preserved).map_err(step("closing descriptors"))
}

/// A process that may outlive its maker does so only when there is a record of it.
fn report_ready(gate: &Closed<'_>, socket: BorrowedFd<'_>) -> Result<(), PayloadError> {
    ToMaker::Ready
        .send(socket)
        .map_err(step("reporting that it is ready"))?;
    if gate.outlives_maker() {
        FromMaker::Recorded
            .expect(socket)
            .map_err(step("waiting to be recorded"))?;
    }
    Ok(())
}

fn state(plan: &Plan, status: Status, pid: Option<Pid>) -> Vec<u8> {
    Facts::of(plan).state(status, pid)
}
