//! `process.rlimits`.

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit, setrlimit};

use super::IdentityError;

const FIELD: &str = "process.rlimits";

/// One checked limit.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    kind: PosixRlimitType,
    soft: Option<u64>,
    hard: Option<u64>,
}

pub(super) fn plan(rlimits: &[PosixRlimit]) -> Result<Vec<Limit>, IdentityError> {
    let mut limits: Vec<Limit> = Vec::with_capacity(rlimits.len());
    for rlimit in rlimits {
        let kind = rlimit.typ();
        // runtime-spec config: "If the rlimits array contains duplicated entries ... the runtime MUST generate an error".
        if limits.iter().any(|known| known.kind == kind) {
            return Err(IdentityError::Value {
                field: FIELD,
                value: kind.to_string(),
                reason: "given twice",
            });
        }
        if rlimit.soft() > rlimit.hard() {
            let value = format!("{kind} soft {}, hard {}", rlimit.soft(), rlimit.hard());
            return Err(IdentityError::Value {
                field: FIELD,
                value,
                reason: "soft is above hard",
            });
        }
        // RLIM_INFINITY is the largest number.
        let finite = |value: u64| Some(value).filter(|value| *value != u64::MAX);
        limits.push(Limit {
            kind,
            soft: finite(rlimit.soft()),
            hard: finite(rlimit.hard()),
        });
    }
    Ok(limits)
}

pub(super) fn apply(limits: &[Limit]) -> Result<(), IdentityError> {
    set(limits, setrlimit)
}

/// For another process.
pub(super) fn apply_to(pid: Pid, limits: &[Limit]) -> Result<(), IdentityError> {
    set(limits, |resource, limit| {
        prlimit(Some(pid), resource, limit).map(drop)
    })
}

fn set(limits: &[Limit], set: impl Fn(Resource, Rlimit) -> Result<(), Errno>) -> Result<(), IdentityError> {
    limits.iter().try_for_each(|limit| {
        let new = Rlimit {
            current: limit.soft,
            maximum: limit.hard,
        };
        set(resource(limit.kind), new).map_err(|errno| {
            let show =
                |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
            let what = format!(
                "{} soft {}, hard {}",
                limit.kind,
                show(limit.soft),
                show(limit.hard)
            );
            IdentityError::Refused {
                field: FIELD,
                what,
                source: errno.into(),
            }
        })
    })
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}
