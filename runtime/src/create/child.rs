//! The container's first process, from the clone to the execve; the order of its steps and why.
//!
//! It is a copy of a process with one thread, so it may do what any program may. It never returns into the maker's code.

use super::chain;
use super::gate::Closed;
use super::message::{FromChild, ToChild};
use super::namespaces::Joined;
use crate::cgroup::{Cgroup, CgroupError, Join};
use crate::hooks::{HookError, HookRun};
use crate::identity::{self, IdentityError};
use crate::plan::{Plan, Stdio};
use crate::rootfs::{Prepared, Root, RootfsError, console, sysctl};
use crate::state::{Status, oci_state};
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::pidfd::{Pid, Signal};
use coracle_linux::process::{self, Clone};
use coracle_linux::{keyring, prctl, signal};
use rustix::fs::Mode;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

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
    // The words that container engines look for to choose exit codes 126 and 127.
    #[error("exec: {program:?}: {why}")]
    Lookup { program: String, why: String },
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
    } = inherited;
    signal::restore_defaults().map_err(step("unblocking signals"))?;
    // Modes are meant as they are given, until the payload's own mask is set.
    rustix::process::umask(Mode::empty());
    wait_for_id_maps(&plan, socket)?;
    // On cgroup v1 a thread that moves itself alone waits for no grace period; on v2 it was born there.
    join.enter()?;
    // Before anything of the container can look at this process (CVE-2016-9962), but after its maker has written to
    // files in /proc that belong to the host's root from now on. The payload's execve ends it.
    prctl::set_dumpable(false).map_err(step("hiding from ptrace"))?;
    if let Some(joined) = joined {
        joined.enter().map_err(step("joining namespaces"))?;
    }
    enter_late_namespaces(&plan)?;
    if let Some(warning) = identity::before_root(&plan.identity)? {
        FromChild::Warning(warning)
            .send(socket)
            .map_err(step("reporting a warning"))?;
    }
    become_root_of_namespace(&plan)?;
    // Its maker's death is its own, until it is ready. (Set after the change of user, which clears it.)
    prctl::set_parent_death_signal(Some(Signal::KILL)).map_err(step("asking for the maker's death"))?;
    rustix::process::setsid().map_err(|errno| step("starting a session")(errno.into()))?;
    join_keyring(&plan)?;
    let gate = Closed::take(&plan.options.gate, socket).map_err(step("opening the exec fifo"))?;
    let pid = pid_on_host();
    let assembled = Root::assemble(&plan, cgroup, prepared)?;
    take_streams(&mut plan, assembled.terminal, socket)?;
    run_create_hooks(&plan, pid, socket)?;
    set_names(&plan)?;
    assembled.root.pivot()?;
    sysctl::set(&plan.sysctls)?;
    assembled.root.finish(&plan)?;
    let env = with_home(&plan);
    give_streams(&plan);
    let listener = identity::apply(&plan.identity, plan.seccomp.as_ref(), &plan.process.cwd)?;
    let program = find_program(&plan.process.args[0], &env)?;
    if let Some(listener) = listener {
        FromChild::SeccompListener(listener)
            .send(socket)
            .map_err(step("sending the seccomp listener"))?;
    }
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
        let Ok(opened) = gate.wait() else { return std::mem::forget(plan) };
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

/// The ids of a new user namespace are mapped by the maker.
fn wait_for_id_maps(plan: &Plan, socket: BorrowedFd<'_>) -> Result<(), ChildError> {
    if plan.namespaces.id_maps.is_none() {
        return Ok(());
    }
    ToChild::Go
        .expect(socket)
        .map_err(step("waiting for the id maps"))
}

/// Namespaces that a clone would make too early: the root of a cgroup namespace is the cgroup one is in, and the
/// offsets of a time namespace are written before anybody enters it.
fn enter_late_namespaces(plan: &Plan) -> Result<(), ChildError> {
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

/// In a user namespace: so far this process is nobody in it.
fn become_root_of_namespace(plan: &Plan) -> Result<(), ChildError> {
    use rustix::fs::{Gid, Uid};
    if !plan.namespaces.has_user() {
        return Ok(());
    }
    let failed = |errno: rustix::io::Errno| step("becoming root of the user namespace")(errno.into());
    match rustix::thread::set_thread_groups(&[]) {
        // Where setgroups is denied there is nothing to give up either.
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let (gid, uid) = (Gid::ROOT, Uid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)
}

/// A keyring of its own, so that it does not see the keys of whoever started it.
fn join_keyring(plan: &Plan) -> Result<(), ChildError> {
    if plan.options.no_new_keyring {
        return Ok(());
    }
    let name = CString::new(format!("_ses.{}", plan.id))
        .map_err(|error| step("naming its keyring")(error.into()))?;
    match keyring::join_session(&name) {
        // A kernel without keys has none to see.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        done => done.map_err(step("making its session keyring")),
    }
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
        return be_streams([&slave, &slave, &slave]).map_err(failed);
    }
    match std::mem::replace(&mut plan.stdio, Stdio::Inherit) {
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => be_streams([&stdin, &stdout, &stderr]).map_err(failed),
        Stdio::Inherit | Stdio::Terminal => Ok(()),
    }
}

fn be_streams([stdin, stdout, stderr]: [&OwnedFd; 3]) -> io::Result<()> {
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    Ok(())
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

/// The payload's user may write to what it is given, as in a login session.
fn give_streams(plan: &Plan) {
    let owner = rustix::fs::Uid::from_raw(plan.process.uid);
    let streams = [
        std::io::stdin().as_fd().try_clone_to_owned(),
        std::io::stdout().as_fd().try_clone_to_owned(),
        std::io::stderr().as_fd().try_clone_to_owned(),
    ];
    for stream in streams.into_iter().flatten() {
        let is_null = |stat: &rustix::fs::Stat| stat.st_rdev == rustix::fs::makedev(1, 3);
        let wanted =
            rustix::fs::fstat(&stream).is_ok_and(|stat| stat.st_uid != plan.process.uid && !is_null(&stat));
        if wanted {
            // Not possible for everything one can be given (sockets, files of a read-only file system): no harm done.
            let _ = rustix::fs::fchown(&stream, Some(owner), None);
        }
    }
}

/// The environment; HOME from the container's /etc/passwd if it is not there.
fn with_home(plan: &Plan) -> Vec<CString> {
    let mut env = plan.process.env.clone();
    let has_home = |variable: &CString| {
        let bytes = variable.as_bytes();
        bytes.starts_with(b"HOME=") && bytes.len() > 5
    };
    if !env.iter().any(has_home) {
        env.retain(|variable| !variable.as_bytes().starts_with(b"HOME="));
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let home = home_of(&passwd, plan.process.uid).unwrap_or("/");
        env.extend(CString::new(format!("HOME={home}")));
    }
    env
}

/// The home directory of a user in the text of a passwd file (passwd(5)).
fn home_of(passwd: &str, uid: u32) -> Option<&str> {
    let entries = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = entries.filter(|entry| entry.get(2).and_then(|id| id.parse().ok()) == Some(uid));
    found
        .next()
        .and_then(|entry| entry.get(5).copied())
        .filter(|home| !home.is_empty())
}

/// The program's path: as it is when it has a slash, else from PATH of the container's environment.
fn find_program(name: &CStr, env: &[CString]) -> Result<CString, ChildError> {
    let failed = |why: String| ChildError::Lookup {
        program: name.to_string_lossy().into_owned(),
        why,
    };
    if name.to_bytes().contains(&b'/') {
        let why = |error: io::Error| failed(format!("stat {}: {}", name.to_string_lossy(), words(&error)));
        return check_program(name).map(|()| name.to_owned()).map_err(why);
    }
    let path = env
        .iter()
        .find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="))
        .unwrap_or_default();
    let mut denied = false;
    for directory in path.split(|byte| *byte == b':') {
        let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
        let Ok(candidate) = CString::new([directory, b"/", name.to_bytes()].concat()) else {
            continue;
        };
        match check_program(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    Err(failed(if denied {
        "permission denied".to_owned()
    } else {
        "executable file not found in $PATH".to_owned()
    }))
}

fn check_program(path: &CStr) -> io::Result<()> {
    use rustix::fs::{Access, FileType};
    let found = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(rustix::fs::access(path, Access::EXEC_OK)?)
}

/// An error in the words of C, without Rust's "(os error N)".
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_that_of_the_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/srv:\n";
        assert_eq!(home_of(passwd, 33), Some("/srv"));
        assert_eq!(home_of(passwd, 0), Some("/root"));
        assert_eq!(home_of(passwd, 1), None);
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let env = [c"PATH=/nowhere:/bin:/usr/bin".to_owned()];
        assert_eq!(find_program(c"sh", &env).unwrap().as_c_str(), c"/bin/sh");
        let error = find_program(c"surely-not-there", &env).unwrap_err().to_string();
        assert!(error.ends_with("executable file not found in $PATH"), "{error}");
        let error = find_program(c"/surely/not/there", &env).unwrap_err().to_string();
        assert!(error.ends_with("no such file or directory"), "{error}");
        let error = find_program(c"/etc", &env).unwrap_err().to_string();
        assert!(error.ends_with("is a directory"), "{error}");
    }
}
