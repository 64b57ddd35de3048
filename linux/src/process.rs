//! Making processes: `clone3(2)` used like fork, and `execveat(2)`, `close_range(2)`, `waitid(2)`.
//!
//! # Safety
//! A forked copy of a process may only run arbitrary code when the original had a single thread: otherwise a lock
//! held by another thread stays locked in the copy for ever. [`clone`] asks the kernel about that, each time.

#![allow(unsafe_code)]

use bitflags::bitflags;
use rustix::process::Pid;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

bitflags! {
    /// Namespaces, as `clone(2)` and `setns(2)` spell them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Namespaces: u64 {
        /// Time namespace (only through `unshare` and `setns`: its offsets are written before it is entered).
        const TIME = 0x80;
        /// Mount namespace.
        const MNT = 0x0002_0000;
        /// Cgroup namespace.
        const CGROUP = 0x0200_0000;
        /// Host name and domain name.
        const UTS = 0x0400_0000;
        /// System V IPC and POSIX message queues.
        const IPC = 0x0800_0000;
        /// User namespace.
        const USER = 0x1000_0000;
        /// Process ids.
        const PID = 0x2000_0000;
        /// Network.
        const NET = 0x4000_0000;
    }
}

/// How [`clone`] makes the new process.
#[derive(Debug, Default)]
pub struct Clone<'a> {
    /// Namespaces the child is born in, new.
    pub namespaces: Namespaces,
    /// A cgroup v2 directory the child is born in (`CLONE_INTO_CGROUP`, 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make the child a sibling: its parent is the caller's parent (`CLONE_PARENT`).
    pub sibling: bool,
}

/// A process made by [`clone`].
#[derive(Debug)]
pub struct Child {
    /// Its id, in the caller's PID namespace.
    pub pid: Pid,
    /// A descriptor that always means this process, whatever happens to the id.
    pub pidfd: OwnedFd,
}

/// Starts a copy of this process that runs `child` and exits with the code it returns.
///
/// Signal handlers are back at their defaults in the child (`CLONE_CLEAR_SIGHAND`); the signal mask is kept.
///
/// # Errors
/// `EINVAL` when this process has more than one thread; what `clone3(2)` gives otherwise.
pub fn clone(how: &Clone<'_>, child: impl FnOnce() -> u8) -> io::Result<Child> {
    ensure_single_thread()?;
    let mut pidfd: libc::c_int = -1;
    let cgroup_flag = if how.cgroup.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    let sibling_flag = if how.sibling { CLONE_PARENT } else { 0 };
    let args = CloneArgs {
        flags: how.namespaces.bits() | CLONE_PIDFD | CLONE_CLEAR_SIGHAND | cgroup_flag | sibling_flag,
        pidfd: (&raw mut pidfd) as u64,
        // With CLONE_PARENT the exit signal is the caller's own and must not be given (clone(2), EINVAL).
        exit_signal: if how.sibling { 0 } else { u64::from(SIGCHLD) },
        cgroup: how
            .cgroup
            .map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid clone_args of the size given and outlives the call; its pidfd points at a live c_int.
    // Without CLONE_VM the child works on a copy of the memory, and a single thread was verified above, so no lock
    // can be held by somebody who does not exist in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => run_child(child),
        pid => {
            // SAFETY: the kernel has just stored a new descriptor here (CLONE_PIDFD) that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pid.map(|pid| Child { pid, pidfd })
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))
        }
    }
}

/// An execve(2) whose arguments are laid out already.
#[derive(Debug)]
pub struct Execve<'a> {
    path: &'a CStr,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// The pointers are into these.
    strings: PhantomData<&'a [CString]>,
}

impl<'a> Execve<'a> {
    /// Of the program at `path`.
    #[must_use]
    pub fn prepare(path: &'a CStr, args: &'a [CString], env: &'a [CString]) -> Self {
        Self {
            path,
            args: pointers(args),
            env: pointers(env),
            strings: PhantomData,
        }
    }

    /// Replaces the program of this process: one system call, and nothing is allocated. Returns only on failure.
    #[must_use]
    pub fn call(&self) -> io::Error {
        // SAFETY: path is NUL terminated; both arrays hold pointers to NUL terminated strings that are borrowed for the
        // object's life and end with a null pointer, as execve(2) wants.
        unsafe { libc::execve(self.path.as_ptr(), self.args.as_ptr(), self.env.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Replaces the program of this process by the file `name` in the directory `dir`. Returns only on failure.
pub fn execveat(
    dir: BorrowedFd<'_>,
    name: &CStr,
    args: &[CString],
    env: &[CString],
) -> io::Result<Infallible> {
    let args = pointers(args);
    let env = pointers(env);
    let (dir, name) = (dir.as_raw_fd(), name.as_ptr());
    // SAFETY: the descriptor is borrowed for the whole call and name is NUL terminated; both arrays hold pointers to
    // NUL terminated strings that outlive the call and end with a null pointer.
    unsafe { libc::syscall(libc::SYS_execveat, dir, name, args.as_ptr(), env.as_ptr(), 0) };
    Err(io::Error::last_os_error())
}

/// Replaces the program of this process by the one in `file`, which needs no name in this process's root. Returns only
/// on failure.
pub fn fexecve(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Result<Infallible> {
    let args = pointers(args);
    let env = pointers(env);
    let (file, name) = (file.as_raw_fd(), c"".as_ptr());
    // SAFETY: the descriptor is borrowed for the whole call and the name is the empty NUL terminated string; both arrays
    // hold pointers to NUL terminated strings that outlive the call and end with a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file,
            name,
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(io::Error::last_os_error())
}

/// Marks every descriptor from `first` on to be closed by the next `execve`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors, which cannot invalidate any OwnedFd; takes no pointers.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from `first` on but those in `keep`.
///
/// For a forked child on its way to `execve` only: what it does not keep belongs to the parent's objects, copied
/// with the memory, and this child never runs their destructors. See [`clone`]'s exit path.
pub fn close_all_but(keep: &[BorrowedFd<'_>], first: u32) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    kept.sort_unstable();
    let mut first = first;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > first {
            // The last range includes its end; there is no descriptor of that number.
            close_range(first, fd - 1)?;
        }
        first = first.max(fd.saturating_add(1));
    }
    Ok(())
}

/// Lets descriptors 3 to 2+`count` of this process live through `execve`.
///
/// # Errors
/// `EBADF` when one of them is not open.
pub fn keep_on_exec(count: u32) -> io::Result<()> {
    for fd in (3..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        // SAFETY: only changes a flag of a descriptor, and fails when there is none of this number.
        let done = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
        if done == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

impl Exit {
    /// The code a shell shows: the exit code, or 128 plus the signal.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// Collects the child behind `pidfd` if it has ended; `None` while it runs.
///
/// # Errors
/// `ECHILD` when it is not a child of this process.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    wait_with(
        pidfd,
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG,
    )
}

/// Waits for the child behind `pidfd` and collects it.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Exit> {
    loop {
        if let Some(exit) = wait_with(pidfd, rustix::process::WaitIdOptions::EXITED)? {
            return Ok(exit);
        }
    }
}

fn wait_with(pidfd: BorrowedFd<'_>, options: rustix::process::WaitIdOptions) -> io::Result<Option<Exit>> {
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd), options)
    })?;
    let narrow = |value: i32| u8::try_from(value & 0xff).unwrap_or(u8::MAX);
    Ok(status.and_then(
        |status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Exit::Code(narrow(code))),
            (None, Some(signal)) => Some(Exit::Signal(narrow(signal))),
            (None, None) => None,
        },
    ))
}

/// Fails with `EINVAL` when this process has more than one thread.
///
/// `unshare(CLONE_THREAD)` changes nothing and is refused exactly then (unshare(2)); it costs a tenth of a
/// microsecond, where reading `/proc/self/status` costs twenty.
pub fn ensure_single_thread() -> io::Result<()> {
    // SAFETY: takes no pointers, and in a process with one thread has no effect at all.
    let alone = unsafe { libc::unshare(libc::CLONE_THREAD) };
    if alone == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs the child's closure; never returns into the copied stack of the parent.
fn run_child<T>(child: impl FnOnce() -> u8) -> T {
    // Where a panic would abort: see `trap`.
    #[cfg(panic = "abort")]
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        trap()
    }));
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
    // Not with _exit(3): under a system call filter that denies the call, musl's repeats it for ever.
    // SAFETY: ends this process at once. No destructor and no exit handler of the parent's copied state runs, which
    // is what a forked copy needs: they belong to the parent.
    unsafe { libc::syscall(libc::SYS_exit_group, i32::from(code)) };
    trap()
}

/// Ends this process by an instruction that no program may execute, which no filter is asked about. Not by abort(3): that
/// signals the thread by its number, and in a forked copy the C library knows only the number of the original.
fn trap() -> ! {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    // SAFETY: the undefined instruction ends the process by SIGILL, also one that blocks or ignores it (signal(7)).
    unsafe {
        std::arch::asm!("ud2", options(noreturn))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("udf #0", options(noreturn))
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("unimp", options(noreturn))
    }
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )))]
    std::process::abort()
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: takes no pointers. Closing descriptors that OwnedFds of the copied memory still name is sound here
    // because the caller, a forked child before its execve, never uses or drops those (see close_all_but).
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// `struct clone_args` of `linux/sched.h`, version 2 (5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u32 = 17;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_noticed() {
        // The test runner itself has several.
        let waiting = std::thread::spawn(|| ensure_single_thread().map_err(|e| e.raw_os_error()));
        assert_eq!(waiting.join().unwrap(), Err(Some(libc::EINVAL)));
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(Exit::Code(7).shell_code(), 7);
        assert_eq!(Exit::Signal(9).shell_code(), 137);
    }
}
