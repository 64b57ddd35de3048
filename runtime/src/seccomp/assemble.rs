//! The program: a chain over the architectures, in each a binary search over the system call number.
//!
//! ```text
//! ld arch; jeq A? -> [ld nr; binary search -> ret action | conditions of one call, ret ...]; jeq B? -> ...; ret KILL
//! ```
//!
//! Numbers are cut into intervals with one action each, so that the usual profile needs some hundred comparisons in
//! all and about eight for one call. Jumps reach 255 instructions; longer ones go through a `ja`.

use seccompiler::{BpfProgram, SeccompRule};

use super::SeccompError;
use super::arch::{Arch, X32_BIT};
use super::profile::{Action, Call, Profile, Table};

/// `BPF_MAXINSNS` of linux/bpf_common.h.
const MAX_INSTRUCTIONS: usize = 4096;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;

pub(super) fn assemble(profile: &Profile) -> Result<Vec<libc::sock_filter>, SeccompError> {
    let mut program = vec![statement(LOAD_WORD, ARCH)];
    let mut done: Vec<u32> = Vec::new();
    for table in &profile.tables {
        let audit = table.arch.audit();
        if done.contains(&audit) {
            continue;
        }
        done.push(audit);
        let block = architecture(profile, audit);
        program.push(jump(JUMP_EQUAL, audit, 1, 0));
        program.push(statement(JUMP, length(&block)));
        program.extend(block);
    }
    program.push(ret(Action::KILL_THREAD));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLarge(program.len()));
    }
    Ok(program)
}

/// What happens with the numbers from `first` up to the next interval's.
#[derive(Clone, Copy)]
struct Interval<'a> {
    first: u32,
    leaf: Leaf<'a>,
}

#[derive(Clone, Copy)]
enum Leaf<'a> {
    Return(Action),
    Conditions(&'a Call),
}

fn architecture(profile: &Profile, audit: u32) -> Vec<libc::sock_filter> {
    let mut intervals = Intervals(Vec::new());
    let of_audit = |table: &&Table| table.arch.audit() == audit;
    let x32 = |table: &&Table| table.arch == Arch::X32;
    if let Some(table) = profile.tables.iter().filter(of_audit).find(|table| !x32(table)) {
        intervals.add_table(profile, table, 0);
    }
    if audit == Arch::X86_64.audit() {
        match profile.tables.iter().find(x32) {
            Some(table) => intervals.add_table(profile, table, X32_BIT),
            // Not listed, so it is an architecture of its own that the profile does not know.
            None => intervals.add(X32_BIT, Leaf::Return(Action::KILL_THREAD)),
        }
    }
    // -1 is what a tracer leaves in the register of a call it skipped; it is not an x32 call.
    intervals.add(u32::MAX, Leaf::Return(profile.default));
    let mut block = vec![statement(LOAD_WORD, NR)];
    search(&intervals.0, profile.default, &mut block);
    block
}

struct Intervals<'a>(Vec<Interval<'a>>);

impl<'a> Intervals<'a> {
    fn add_table(&mut self, profile: &Profile, table: &'a Table, base: u32) {
        self.add(base, Leaf::Return(profile.default));
        for (number, call) in &table.calls {
            let leaf = match call.always {
                Some(action) => Leaf::Return(action),
                None => Leaf::Conditions(call),
            };
            self.add(*number, leaf);
            self.add(number + 1, Leaf::Return(profile.default));
        }
        if profile.enosys_for_newer
            && let Some(last) = table.last
        {
            self.add(last + 1, Leaf::Return(Action::ENOSYS));
        }
    }

    /// Numbers only grow; a later entry for the same number replaces the earlier one.
    fn add(&mut self, first: u32, leaf: Leaf<'a>) {
        if self.0.last().is_some_and(|last| last.first == first) {
            self.0.pop();
        }
        let same = match (self.0.last().map(|last| last.leaf), leaf) {
            (Some(Leaf::Return(before)), Leaf::Return(now)) => before == now,
            _ => false,
        };
        if !same {
            self.0.push(Interval { first, leaf });
        }
    }
}

/// Code for "which interval holds the accumulator": the lower half follows, the upper half is jumped to.
fn search(intervals: &[Interval<'_>], default: Action, out: &mut Vec<libc::sock_filter>) {
    match intervals {
        [] => out.push(ret(default)),
        [one] => leaf(one.leaf, default, out),
        _ => {
            let (low, high) = intervals.split_at(intervals.len() / 2);
            let middle = high.first().map_or(0, |interval| interval.first);
            let mut below = Vec::new();
            search(low, default, &mut below);
            match u8::try_from(below.len()) {
                Ok(distance) => out.push(jump(JUMP_GREATER_EQUAL, middle, distance, 0)),
                Err(_) => {
                    out.push(jump(JUMP_GREATER_EQUAL, middle, 0, 1));
                    out.push(statement(JUMP, length(&below)));
                }
            }
            out.extend(below);
            search(high, default, out);
        }
    }
}

fn leaf(leaf: Leaf<'_>, default: Action, out: &mut Vec<libc::sock_filter>) {
    match leaf {
        Leaf::Return(action) => out.push(ret(action)),
        Leaf::Conditions(call) => {
            for (rule, action) in &call.when {
                out.extend(conditions(rule));
                out.push(ret(*action));
            }
            out.push(ret(default));
        }
    }
}

/// seccompiler's code for one rule. It falls through to the next instruction on a match and jumps over that one
/// otherwise; its first two instructions, only needed inside a chain of its own, are left out.
fn conditions(rule: &SeccompRule) -> impl Iterator<Item = libc::sock_filter> {
    let code: BpfProgram = rule.clone().into();
    code.into_iter().skip(2).map(|i| libc::sock_filter {
        code: i.code,
        jt: i.jt,
        jf: i.jf,
        k: i.k,
    })
}

fn statement(code: u16, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn ret(action: Action) -> libc::sock_filter {
    statement(RETURN, action.0)
}

/// A block's length as a jump distance. What does not fit is far over the kernel's limit, which `assemble` checks.
fn length(block: &[libc::sock_filter]) -> u32 {
    u32::try_from(block.len()).unwrap_or(u32::MAX)
}
