//! System call numbers of the architectures a filter can hold, and how the kernel tells them apart.

use std::str::FromStr as _;

/// One table of system calls a process on this machine can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 64-bit x86 with 32-bit pointers: the architecture word of x86_64, numbers with bit 30 set.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Arm,
}

/// The runtime specification's names of the architectures filters are made for, for `features`.
#[must_use]
pub(crate) fn supported_architectures() -> Vec<&'static str> {
    match Arch::native() {
        Some(Arch::X86_64) => vec!["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"],
        Some(Arch::Aarch64) => vec!["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => Vec::new(),
    }
}

impl Arch {
    /// The architecture this program was built for, when there is a table for it.
    #[must_use]
    pub(crate) const fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// The table for a name of the specification, or nothing when processes of a `native` machine cannot use it.
    pub(super) fn from_spec(arch: oci_spec::runtime::Arch, native: Self) -> Option<Self> {
        use oci_spec::runtime::Arch as Spec;
        let found = match arch {
            Spec::ScmpArchNative => native,
            Spec::ScmpArchX86_64 => Self::X86_64,
            Spec::ScmpArchX86 => Self::X86,
            Spec::ScmpArchX32 => Self::X32,
            Spec::ScmpArchAarch64 => Self::Aarch64,
            Spec::ScmpArchArm => Self::Arm,
            _ => return None,
        };
        (found.machine() == native.machine()).then_some(found)
    }

    fn machine(self) -> u8 {
        match self {
            Self::X86_64 | Self::X86 | Self::X32 => 0,
            Self::Aarch64 | Self::Arm => 1,
        }
    }

    /// `seccomp_data.arch`, an `AUDIT_ARCH_*` of linux/audit.h: the ELF machine, 64-bit and little-endian bits.
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether conditions look at all 64 bits of an argument. x32 is taken as 32-bit, as libseccomp takes it.
    pub(super) const fn wide_arguments(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// The number of a system call, or nothing when this architecture has no call of that name.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let id = match self {
            Self::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok().map(|nr| nr.id()),
            Self::X86 => syscalls::x86::Sysno::from_str(name).ok().map(|nr| nr.id()),
            Self::X32 => return x32_number(name),
            Self::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok().map(|nr| nr.id()),
            Self::Arm => syscalls::arm::Sysno::from_str(name)
                .ok()
                .map(|nr| nr.id())
                .or_else(|| arm_private(name)),
        };
        id.or_else(|| newer_than_tables(name))
            .and_then(|id| u32::try_from(id).ok())
    }

    /// For 32-bit x86: the old multiplexing call that also does what `name` does, and its first argument.
    pub(super) fn multiplexed(self, name: &str) -> Option<(u32, u64)> {
        if self != Self::X86 {
            return None;
        }
        let find = |table: &[(&str, u64)]| {
            table
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, call)| *call)
        };
        find(SOCKETCALL)
            .map(|call| (X86_SOCKETCALL, call))
            .or_else(|| find(IPC).map(|call| (X86_IPC, call)))
    }
}

/// Set in the number of every x32 system call (asm/unistd.h `__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

const X86_SOCKETCALL: u32 = 102;
const X86_IPC: u32 = 117;

/// linux/net.h `SYS_*`.
const SOCKETCALL: &[(&str, u64)] = &[
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// linux/ipc.h.
const IPC: &[(&str, u64)] = &[
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The x32 calls with numbers of their own, from 512 (arch/x86/entry/syscalls/syscall_64.tbl, ABI "x32").
const X32_OWN: &[&str] = &[
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

fn x32_number(name: &str) -> Option<u32> {
    let own = X32_OWN
        .iter()
        .position(|own| *own == name)
        .and_then(|index| u32::try_from(512 + index).ok());
    own.or_else(|| Arch::X86_64.number(name)).map(|nr| nr | X32_BIT)
}

/// Calls 32-bit ARM keeps apart from the common table (arch/arm/include/uapi/asm/unistd.h, from 0x0f0000).
fn arm_private(name: &str) -> Option<i32> {
    let offset = ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls"]
        .iter()
        .position(|own| *own == name)?;
    i32::try_from(offset).ok().map(|offset| 0x000f_0001 + offset)
}

/// Calls added after the tables' release; new calls have the same number everywhere.
fn newer_than_tables(name: &str) -> Option<i32> {
    match name {
        "listns" => Some(470),
        "rseq_slice_yield" => Some(471),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_kernel_tables() {
        assert_eq!(Arch::X86_64.number("clone3"), Some(435));
        assert_eq!(Arch::X86.number("socketcall"), Some(102));
        assert_eq!(Arch::X86.number("ipc"), Some(117));
        assert_eq!(Arch::X32.number("read"), Some(X32_BIT));
        assert_eq!(Arch::X32.number("rt_sigaction"), Some(X32_BIT | 512));
        assert_eq!(Arch::X32.number("pwritev2"), Some(X32_BIT | 547));
        assert_eq!(Arch::Aarch64.number("openat"), Some(56));
        assert_eq!(Arch::Arm.number("cacheflush"), Some(0x000f_0002));
        assert_eq!(Arch::X86_64.number("no_such_call"), None);
    }

    #[test]
    fn only_architectures_the_machine_can_run_are_taken() {
        use oci_spec::runtime::Arch as Spec;
        assert_eq!(Arch::from_spec(Spec::ScmpArchX32, Arch::X86_64), Some(Arch::X32));
        assert_eq!(Arch::from_spec(Spec::ScmpArchArm, Arch::X86_64), None);
        assert_eq!(Arch::from_spec(Spec::ScmpArchS390x, Arch::Aarch64), None);
    }
}
