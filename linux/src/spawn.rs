//! Starting a program from a process with threads: posix_spawn(3), which runs nothing of ours between clone and exec, and
//! shares the parent's memory meanwhile, so that its cost does not grow with the parent.
//!
//! # Safety
//! Only pointers to values that live on this stack frame, or in the arguments, are passed; libc keeps none of them after
//! the call that takes them.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::process::Pid;

/// What to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Path of the program; not looked up in PATH.
    pub program: CString,
    /// Arguments, the program's name first.
    pub args: Vec<CString>,
    /// Environment, `NAME=value`.
    pub env: Vec<CString>,
    /// Becomes 0, 1, 2 ... of the program. Every other descriptor has to be close-on-exec.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Whether the program gets a session of its own, so that no terminal and no signal to our group reaches it.
    pub own_session: bool,
}

/// A started program; the caller has to collect it with waitpid.
#[derive(Debug)]
pub struct Child {
    /// Its id.
    pub pid: Pid,
    /// Its descriptor: readable once it has ended.
    pub pidfd: OwnedFd,
}

impl Spawn<'_> {
    /// Starts the program.
    ///
    /// # Errors
    /// What clone(2) or execve(2) said; nothing is left behind then.
    pub fn start(&self) -> io::Result<Child> {
        // A descriptor that sits on another's target number would be overwritten before it is used: move all out of the way.
        let lowest = i32::try_from(self.descriptors.len()).map_err(io::Error::other)?;
        let moved = self
            .descriptors
            .iter()
            .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, lowest))
            .collect::<Result<Vec<OwnedFd>, _>>()?;
        let mut actions = FileActions::new()?;
        for (target, fd) in (0..).zip(&moved) {
            actions.dup2(fd, target)?;
        }
        let mut attributes = Attributes::new()?;
        attributes.restore_signals()?;
        let session = if self.own_session {
            libc::POSIX_SPAWN_SETSID
        } else {
            0
        };
        attributes.set_flags(session | SIGNAL_FLAGS)?;
        let pid = self.call(&actions, &attributes)?;
        // Not collected yet, so the id is still its.
        match crate::pidfd::open(pid) {
            Ok(pidfd) => Ok(Child { pid, pidfd }),
            Err(error) => {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                Err(error)
            }
        }
    }

    fn call(&self, actions: &FileActions, attributes: &Attributes) -> io::Result<Pid> {
        let args = pointers(&self.args);
        let env = pointers(&self.env);
        let mut pid: libc::pid_t = 0;
        // SAFETY: `program` is a C string; `args` and `env` are arrays of pointers to C strings that end with null, and
        // `self` owns the strings until after the call; `actions` and `attributes` are initialised (their constructors);
        // `pid` is writable. posix_spawn stores none of the pointers.
        let code = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                self.program.as_ptr(),
                &raw const actions.0,
                &raw const attributes.0,
                args.as_ptr(),
                env.as_ptr(),
            )
        };
        check(code)?;
        Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> io::Result<FileActions> {
        let mut value = MaybeUninit::uninit();
        // SAFETY: the pointer is to memory of the right type; init writes it and reads nothing.
        check(unsafe { libc::posix_spawn_file_actions_init(value.as_mut_ptr()) })?;
        // SAFETY: init returned 0, so the value is initialised.
        Ok(FileActions(unsafe { value.assume_init() }))
    }

    fn dup2(&mut self, fd: &OwnedFd, target: i32) -> io::Result<()> {
        // SAFETY: `self.0` is initialised; the numbers are only recorded, and used in the child while `fd` is open here.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, fd.as_raw_fd(), target) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed only here.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut value = MaybeUninit::uninit();
        // SAFETY: the pointer is to memory of the right type; init writes it and reads nothing.
        check(unsafe { libc::posix_spawnattr_init(value.as_mut_ptr()) })?;
        // SAFETY: init returned 0, so the value is initialised.
        Ok(Attributes(unsafe { value.assume_init() }))
    }

    /// The program gets an empty signal mask and the default SIGPIPE, whatever ours are (Rust ignores SIGPIPE).
    fn restore_signals(&mut self) -> io::Result<()> {
        let empty = nix::sys::signal::SigSet::empty();
        // SAFETY: both values are initialised; the set is copied.
        check(unsafe { libc::posix_spawnattr_setsigmask(&raw mut self.0, empty.as_ref()) })?;
        let mut pipe = empty;
        pipe.add(nix::sys::signal::Signal::SIGPIPE);
        // SAFETY: both values are initialised; the set is copied.
        check(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut self.0, pipe.as_ref()) })
    }

    fn set_flags(&mut self, flags: libc::c_short) -> io::Result<()> {
        // SAFETY: `self.0` is initialised.
        check(unsafe { libc::posix_spawnattr_setflags(&raw mut self.0, flags) })
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed only here.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "two bits below 16, which the C library declares as int"
)]
const SIGNAL_FLAGS: libc::c_short =
    (libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF) as libc::c_short;

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr().cast_mut())
        .chain([ptr::null_mut()])
        .collect()
}

/// These functions return the error number instead of setting errno.
fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_program_gets_its_descriptors_and_a_session() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let child = Spawn {
            program: c"/bin/sh".into(),
            args: vec![
                c"sh".into(),
                c"-c".into(),
                c"cut -d' ' -f1,6 /proc/$$/stat >&3".into(),
            ],
            env: vec![],
            descriptors: &[null.as_fd(), null.as_fd(), null.as_fd(), theirs.as_fd()],
            own_session: true,
        }
        .start()
        .unwrap();
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty()).unwrap();
        let pid = child.pid.as_raw_nonzero();
        assert_eq!(said, format!("{pid} {pid}\n"));
    }

    #[test]
    fn a_missing_program_is_the_callers_error() {
        let spawn = Spawn {
            program: c"/nowhere/at/all".into(),
            args: vec![c"x".into()],
            env: vec![],
            descriptors: &[],
            own_session: false,
        };
        assert_eq!(spawn.start().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
