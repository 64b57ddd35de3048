//! `process.scheduler` and `process.ioPriority`.

use coracle_linux::scheduler::{self, Attributes, IoClass};
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler,
};

use super::{IdentityError, refusal};

const SCHEDULER: &str = "process.scheduler";
const IO_PRIORITY: &str = "process.ioPriority";

/// The checked form of both fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    attributes: Option<Attributes>,
    io: Option<(IoClass, u8)>,
}

pub(super) fn plan(process: &Process) -> Result<Schedule, IdentityError> {
    Ok(Schedule {
        attributes: process.scheduler().as_ref().map(attributes).transpose()?,
        io: process.io_priority().as_ref().map(io_priority).transpose()?,
    })
}

impl Schedule {
    pub(super) fn is_empty(&self) -> bool {
        self.attributes.is_none() && self.io.is_none()
    }

    pub(super) fn apply(&self) -> Result<(), IdentityError> {
        if let Some(attributes) = &self.attributes {
            scheduler::set(attributes).map_err(|source| refusal(SCHEDULER, "set", source))?;
        }
        if let Some((class, priority)) = self.io {
            scheduler::set_io_priority(class, priority)
                .map_err(|source| refusal(IO_PRIORITY, "set", source))?;
        }
        Ok(())
    }
}

fn attributes(wanted: &Scheduler) -> Result<Attributes, IdentityError> {
    let refuse = |value: String, reason| IdentityError::Value {
        field: SCHEDULER,
        value,
        reason,
    };
    let nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(refuse(format!("nice {nice}"), "-20 to 19"));
    }
    let priority = wanted.priority().unwrap_or(0);
    let real_time = matches!(
        wanted.policy(),
        LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr
    );
    let range = if real_time { 1..=99 } else { 0..=0 };
    if !range.contains(&priority) {
        return Err(refuse(
            format!("priority {priority}"),
            "1 to 99 for SCHED_FIFO and SCHED_RR, else 0",
        ));
    }
    let times = [wanted.runtime(), wanted.deadline(), wanted.period()];
    if *wanted.policy() != LinuxSchedulerPolicy::SchedDeadline
        && times.iter().any(|time| time.unwrap_or(0) != 0)
    {
        return Err(refuse(
            "runtime, deadline, period".to_owned(),
            "only for SCHED_DEADLINE",
        ));
    }
    Ok(Attributes {
        policy: policy(*wanted.policy()),
        flags: wanted
            .flags()
            .iter()
            .flatten()
            .fold(0, |bits, flag| bits | flag_bit(*flag)),
        nice,
        priority: priority.unsigned_abs(),
        runtime: wanted.runtime().unwrap_or(0),
        deadline: wanted.deadline().unwrap_or(0),
        period: wanted.period().unwrap_or(0),
    })
}

/// linux/sched.h `SCHED_*`.
fn policy(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        // Reserved by the kernel and refused by it.
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

/// linux/sched.h `SCHED_FLAG_*`.
fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(wanted: &LinuxIOPriority) -> Result<(IoClass, u8), IdentityError> {
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => IoClass::RealTime,
        IOPriorityClass::IoprioClassBe => IoClass::BestEffort,
        IOPriorityClass::IoprioClassIdle => IoClass::Idle,
    };
    let priority = u8::try_from(wanted.priority())
        .ok()
        .filter(|priority| *priority <= 7);
    let refused = || IdentityError::Value {
        field: IO_PRIORITY,
        value: format!("priority {}", wanted.priority()),
        reason: "0 to 7",
    };
    priority.map(|priority| (class, priority)).ok_or_else(refused)
}
