//! `linux.seccomp` of the runtime specification: a profile becomes a classic BPF program.
//!
//! ```text
//! LinuxSeccomp --profile::plan--> Profile (checked, names resolved) --assemble--> Filter --install--> kernel
//! ```
//!
//! There is no libseccomp here: compiling Docker's profile with it costs 9 to 14 ms of every container start, this
//! compiler about 0.1 ms (docs/decisions/0002-own-seccomp-assembler.md). What is decided the way runc and libseccomp
//! decide it, so that a profile means the same under Coracle:
//!
//! - the native architecture is always part of the filter; a call from one that is not listed kills the thread;
//! - a rule without arguments beats the rules with arguments of the same system call; else the first match counts;
//! - conditions of one rule are joined by AND, unless one argument appears twice: then each is a rule of its own;
//! - names the tables do not know are skipped; system calls newer than the newest one named in the profile give
//!   ENOSYS instead of a restrictive default action, so that a new libc falls back to older calls.

mod arch;
mod assemble;
#[cfg(test)]
mod interpreter;
mod notify;
mod profile;

use arch::Arch;
pub(crate) use arch::supported_architectures;
pub use notify::DeliverError;
pub(crate) use notify::Listener;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

/// The actions a profile may name, for `features`.
pub(crate) const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The comparisons of arguments, for `features`.
pub(crate) const OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// The flags of a filter, for `features`.
pub(crate) const FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// A compiled profile, ready to be installed in the container's process.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The classic BPF program, at most 4096 instructions.
    pub(crate) program: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` bits for seccomp(2); holds `NEW_LISTENER` when [`Filter::listener`] is set.
    pub(crate) flags: u64,
    /// Where the notification descriptor goes when a rule has the action `SCMP_ACT_NOTIFY`.
    pub(crate) listener: Option<Listener>,
}

/// Why a profile was refused. Each text names the field of `linux.seccomp`.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The default action may not be NOTIFY: the runtime's own calls would wait for the agent.
    #[error("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default action")]
    NotifyByDefault,
    /// write(2) reports the descriptor of the listener; if it waited for the agent nobody would ever get it.
    #[error("linux.seccomp.syscalls[{rule}]: SCMP_ACT_NOTIFY cannot be used for the write system call")]
    NotifyWrite {
        /// Index of the rule.
        rule: usize,
    },
    /// A NOTIFY rule without an agent to notify.
    #[error("linux.seccomp.syscalls[{rule}]: SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath")]
    NoListener {
        /// Index of the rule.
        rule: usize,
    },
    /// The path of the agent's socket must be absolute.
    #[error("linux.seccomp.listenerPath: {0:?} is not an absolute path")]
    ListenerPath(std::path::PathBuf),
    /// `names` is empty or holds an empty name.
    #[error("linux.seccomp.syscalls[{rule}].names: empty")]
    NoName {
        /// Index of the rule.
        rule: usize,
    },
    /// System calls have six arguments.
    #[error("linux.seccomp.syscalls[{rule}].args[{arg}].index: {index} is not an argument (0 to 5)")]
    ArgIndex {
        /// Index of the rule.
        rule: usize,
        /// Index within `args`.
        arg: usize,
        /// The refused value.
        index: usize,
    },
    /// An errno that does not fit the kernel's 16 bits of data, or is beyond its MAX_ERRNO.
    #[error("{field}: {value} is not an error number (0 to 4095)")]
    Errno {
        /// Path of the field.
        field: String,
        /// The refused value.
        value: u32,
    },
    /// `errnoRet` only means something for ERRNO and TRACE.
    #[error("{field}: errnoRet cannot be used with this action")]
    ErrnoUnused {
        /// Path of the field.
        field: String,
    },
    /// No system call table for the machine the runtime was built for.
    #[error("linux.seccomp: seccomp is not supported on this processor architecture")]
    NativeArch,
    /// The kernel takes at most 4096 instructions.
    #[error("linux.seccomp: the profile compiles to {0} instructions, the kernel takes 4096")]
    TooLarge(usize),
    /// seccompiler refused a condition.
    #[error("linux.seccomp.syscalls[{rule}].args")]
    Condition {
        /// Index of the rule.
        rule: usize,
        /// What it said.
        source: seccompiler::BackendError,
    },
}

/// Compiles a profile for the machine this program runs on.
///
/// # Errors
/// A field of the profile that cannot be honoured; nothing is dropped silently except names of unknown system calls.
pub fn compile(spec: &LinuxSeccomp) -> Result<Filter, SeccompError> {
    compile_for(spec, Arch::native().ok_or(SeccompError::NativeArch)?)
}

fn compile_for(spec: &LinuxSeccomp, native: Arch) -> Result<Filter, SeccompError> {
    let profile = profile::plan(spec, native)?;
    let program = assemble::assemble(&profile)?;
    let mut flags = filter_flags(spec.flags().as_deref());
    if profile.listener.is_some() {
        flags |= notify::LISTENER_FLAGS;
        if flags & libc::SECCOMP_FILTER_FLAG_TSYNC != 0 {
            // seccomp(2): TSYNC and NEW_LISTENER only go together with TSYNC_ESRCH, since both use the return value.
            flags |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
        }
    }
    Ok(Filter {
        program,
        flags,
        listener: profile.listener,
    })
}

/// Without a `flags` field the speculative store bypass mitigation stays off, as runc has it; an empty list means none.
fn filter_flags(flags: Option<&[LinuxSeccompFilterFlag]>) -> u64 {
    let Some(flags) = flags else {
        return libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    };
    flags.iter().fold(0, |bits, flag| {
        bits | match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => notify::WAIT_KILLABLE_RECV,
        }
    })
}

#[cfg(test)]
mod tests;
