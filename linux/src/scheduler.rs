//! How a process is scheduled: `sched_setattr(2)`, `ioprio_set(2)`.
//!
//! # Safety
//! Both calls change how this process gets time; none touches memory.

#![allow(unsafe_code)]

use std::io;

/// What `struct sched_attr` holds; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `SCHED_*` of sched(7).
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19, for the normal policies.
    pub nice: i32,
    /// 1 to 99, for the real-time policies.
    pub priority: u32,
    /// For `SCHED_DEADLINE`.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`.
    pub period: u64,
}

/// Sets policy and priority of the calling thread.
///
/// # Errors
/// `EINVAL` for a combination the kernel does not know, `EPERM` without `CAP_SYS_NICE`.
pub fn set(attributes: &Attributes) -> io::Result<()> {
    let sized = SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).unwrap_or_default(),
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
    };
    // SAFETY: the pointer is to a live structure laid out as the kernel's, and its size field is its size.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const sized, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Input and output scheduling classes, as ioprio_set(2) numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoClass {
    /// First access to the disk, always.
    RealTime = 1,
    /// The default.
    BestEffort = 2,
    /// Only when nobody else wants the disk.
    Idle = 3,
}

/// Sets the input and output priority (0, the highest, to 7) of the calling thread.
///
/// # Errors
/// `EPERM` for the real-time class without the capability for it.
pub fn set_io_priority(class: IoClass, priority: u8) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: libc::c_int = 13;
    let value = ((class as libc::c_int) << CLASS_SHIFT) | libc::c_int::from(priority);
    // SAFETY: takes only numbers; 0 means the caller.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `struct sched_attr` of linux/sched/types.h, first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_attributes_are_refused() {
        let fifo_without_priority = Attributes {
            policy: 1,
            ..Attributes::default()
        };
        assert_eq!(
            set(&fifo_without_priority).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }

    #[test]
    fn a_thread_may_make_itself_idle() {
        std::thread::spawn(|| {
            set_io_priority(IoClass::Idle, 0).unwrap();
            set(&Attributes {
                policy: 5,
                ..Attributes::default()
            })
            .unwrap();
        })
        .join()
        .unwrap();
    }
}
