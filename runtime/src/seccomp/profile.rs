//! From the published profile to checked rules for each architecture.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::arch::Arch;
use super::{Listener, SeccompError};

/// What the kernel does with a system call, as the value a filter returns (`SECCOMP_RET_*` with its data).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_THREAD: Self = Self(libc::SECCOMP_RET_KILL_THREAD);
    pub(super) const ENOSYS: Self = Self(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

    fn kind(self) -> u32 {
        self.0 & libc::SECCOMP_RET_ACTION_FULL
    }

    /// Whether the call is made in the end, so that an unknown call needs no ENOSYS.
    fn permits(self) -> bool {
        matches!(
            self.kind(),
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
        )
    }
}

/// A checked profile.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) tables: Vec<Table>,
    pub(super) default: Action,
    /// Calls above [`Table::last`] give ENOSYS instead of the default action.
    pub(super) enosys_for_newer: bool,
    pub(super) listener: Option<Listener>,
}

/// The rules of one architecture.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) arch: Arch,
    pub(super) calls: BTreeMap<u32, Call>,
    /// The highest number the profile names, whatever it does with it.
    pub(super) last: Option<u32>,
}

/// The rules of one system call.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) always: Option<Action>,
    pub(super) when: Vec<(SeccompRule, Action)>,
}

/// Checks `spec` and resolves its names for a `native` machine.
pub(super) fn plan(spec: &LinuxSeccomp, native: Arch) -> Result<Profile, SeccompError> {
    let default = action(
        spec.default_action(),
        spec.default_errno_ret(),
        "linux.seccomp.defaultErrnoRet",
    )?;
    if default.kind() == libc::SECCOMP_RET_USER_NOTIF {
        return Err(SeccompError::NotifyByDefault);
    }
    let mut tables: Vec<Table> = architectures(spec, native)
        .into_iter()
        .map(|arch| Table {
            arch,
            calls: BTreeMap::new(),
            last: None,
        })
        .collect();
    let mut notifies = None;
    for (index, syscall) in spec.syscalls().iter().flatten().enumerate() {
        let rule = Rule::check(index, syscall)?;
        if rule.action.kind() == libc::SECCOMP_RET_USER_NOTIF {
            notifies.get_or_insert(index);
        }
        for table in &mut tables {
            rule.add_to(table, default)?;
        }
    }
    let listener = notifies.map(|rule| listener(spec, rule)).transpose()?;
    Ok(Profile {
        tables,
        default,
        enosys_for_newer: !default.permits() && default != Action::ENOSYS,
        listener,
    })
}

/// The native architecture first, then the listed ones that exist here.
fn architectures(spec: &LinuxSeccomp, native: Arch) -> Vec<Arch> {
    let mut found = vec![native];
    for arch in spec
        .architectures()
        .iter()
        .flatten()
        .filter_map(|arch| Arch::from_spec(*arch, native))
    {
        if !found.contains(&arch) {
            found.push(arch);
        }
    }
    found
}

fn listener(spec: &LinuxSeccomp, rule: usize) -> Result<Listener, SeccompError> {
    let path = spec
        .listener_path()
        .as_deref()
        .filter(|path| *path != Path::new(""));
    let path = path.ok_or(SeccompError::NoListener { rule })?;
    if !path.is_absolute() {
        return Err(SeccompError::ListenerPath(path.to_owned()));
    }
    Ok(Listener {
        path: path.to_owned(),
        metadata: spec.listener_metadata().clone(),
    })
}

/// One entry of `syscalls`, checked, not yet resolved.
struct Rule<'a> {
    index: usize,
    names: &'a [String],
    args: &'a [LinuxSeccompArg],
    action: Action,
}

impl<'a> Rule<'a> {
    fn check(index: usize, syscall: &'a LinuxSyscall) -> Result<Self, SeccompError> {
        let names = syscall.names();
        if names.is_empty() || names.iter().any(String::is_empty) {
            return Err(SeccompError::NoName { rule: index });
        }
        let action = action_of_rule(index, syscall)?;
        if action.kind() == libc::SECCOMP_RET_USER_NOTIF && names.iter().any(|name| name == "write") {
            return Err(SeccompError::NotifyWrite { rule: index });
        }
        let args = syscall.args().as_deref().unwrap_or_default();
        if let Some((arg, refused)) = args.iter().enumerate().find(|(_, arg)| arg.index() > 5) {
            return Err(SeccompError::ArgIndex {
                rule: index,
                arg,
                index: refused.index(),
            });
        }
        Ok(Self {
            index,
            names,
            args,
            action,
        })
    }

    fn add_to(&self, table: &mut Table, default: Action) -> Result<(), SeccompError> {
        for name in self.names {
            let number = table.arch.number(name);
            table.last = table.last.max(number);
            // runc drops rules that only repeat the default, so they also do not win over rules with arguments.
            if self.action == default {
                continue;
            }
            if let Some(number) = number {
                let conditions = conditions(self.args, table.arch, self.index)?;
                table
                    .calls
                    .entry(number)
                    .or_default()
                    .add(conditions, self.action);
            }
            if let Some((multiplexer, call)) = table.arch.multiplexed(name).filter(|_| self.args.is_empty()) {
                let first = condition(0, SeccompCmpOp::Eq, call, table.arch, self.index)?;
                let rule = rule(vec![first], self.index)?;
                table
                    .calls
                    .entry(multiplexer)
                    .or_default()
                    .add(vec![rule], self.action);
            }
        }
        Ok(())
    }
}

impl Call {
    fn add(&mut self, conditions: Vec<SeccompRule>, action: Action) {
        if conditions.is_empty() {
            self.always.get_or_insert(action);
        }
        self.when
            .extend(conditions.into_iter().map(|rule| (rule, action)));
    }
}

fn conditions(args: &[LinuxSeccompArg], arch: Arch, index: usize) -> Result<Vec<SeccompRule>, SeccompError> {
    let mut all = Vec::with_capacity(args.len());
    for arg in args {
        let (op, value) = operator(arg);
        // At most 5, checked in Rule::check.
        all.push(condition(
            u8::try_from(arg.index()).unwrap_or(u8::MAX),
            op,
            value,
            arch,
            index,
        )?);
    }
    let repeated = args
        .iter()
        .enumerate()
        .any(|(at, arg)| args[..at].iter().any(|other| other.index() == arg.index()));
    if repeated {
        return all.into_iter().map(|one| rule(vec![one], index)).collect();
    }
    if all.is_empty() {
        Ok(Vec::new())
    } else {
        Ok(vec![rule(all, index)?])
    }
}

fn operator(arg: &LinuxSeccompArg) -> (SeccompCmpOp, u64) {
    let value = arg.value();
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, value),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, value),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, value),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, value),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, value),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, value),
        // The specification's `value` is the mask, `valueTwo` what is compared.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (SeccompCmpOp::MaskedEq(value), arg.value_two().unwrap_or(0))
        }
    }
}

fn condition(
    argument: u8,
    op: SeccompCmpOp,
    value: u64,
    arch: Arch,
    index: usize,
) -> Result<SeccompCondition, SeccompError> {
    let length = if arch.wide_arguments() {
        SeccompCmpArgLen::Qword
    } else {
        SeccompCmpArgLen::Dword
    };
    SeccompCondition::new(argument, length, op, value)
        .map_err(|source| SeccompError::Condition { rule: index, source })
}

fn rule(conditions: Vec<SeccompCondition>, index: usize) -> Result<SeccompRule, SeccompError> {
    SeccompRule::new(conditions).map_err(|source| SeccompError::Condition { rule: index, source })
}

fn action_of_rule(index: usize, syscall: &LinuxSyscall) -> Result<Action, SeccompError> {
    // Formatting the field's path for each rule would cost more than compiling it.
    action(syscall.action(), syscall.errno_ret(), "").map_err(|refused| {
        let field = format!("linux.seccomp.syscalls[{index}].errnoRet");
        match refused {
            SeccompError::Errno { value, .. } => SeccompError::Errno { field, value },
            _ => SeccompError::ErrnoUnused { field },
        }
    })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<Action, SeccompError> {
    let (base, limit) = match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            (libc::SECCOMP_RET_KILL_THREAD, None)
        }
        LinuxSeccompAction::ScmpActKillProcess => (libc::SECCOMP_RET_KILL_PROCESS, None),
        LinuxSeccompAction::ScmpActTrap => (libc::SECCOMP_RET_TRAP, None),
        LinuxSeccompAction::ScmpActErrno => (libc::SECCOMP_RET_ERRNO, Some(4095)),
        LinuxSeccompAction::ScmpActNotify => (libc::SECCOMP_RET_USER_NOTIF, None),
        LinuxSeccompAction::ScmpActTrace => (libc::SECCOMP_RET_TRACE, Some(0xffff)),
        LinuxSeccompAction::ScmpActLog => (libc::SECCOMP_RET_LOG, None),
        LinuxSeccompAction::ScmpActAllow => (libc::SECCOMP_RET_ALLOW, None),
    };
    match (limit, errno) {
        (None, None) => Ok(Action(base)),
        // runtime-spec config-linux: "errnoRet ... When the action doesn't support an errno", the runtime must fail.
        (None, Some(_)) => Err(SeccompError::ErrnoUnused {
            field: field.to_owned(),
        }),
        (Some(limit), Some(value)) if value > limit => Err(SeccompError::Errno {
            field: field.to_owned(),
            value,
        }),
        // EPERM is the specification's default.
        (Some(_), errno) => Ok(Action(base | errno.unwrap_or(libc::EPERM.unsigned_abs()))),
    }
}
