use super::interpreter::{Data, run};
use super::*;
use serde_json::json;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;
const KILL: u32 = 0;

fn profile(value: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

fn compiled(value: serde_json::Value) -> Vec<libc::sock_filter> {
    compile_for(&profile(value), Arch::X86_64).unwrap().program
}

fn refused(value: serde_json::Value) -> String {
    compile_for(&profile(value), Arch::X86_64)
        .unwrap_err()
        .to_string()
}

fn call(program: &[libc::sock_filter], arch: u32, nr: u32, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(program, &Data { nr, arch, args: all })
}

fn allow_list() -> serde_json::Value {
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "write", "exit", "socket", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0xffff_ffffu32, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        ]
    })
}

#[test]
fn an_allow_list_allows_what_it_names_and_nothing_else() {
    let program = compiled(allow_list());
    assert_eq!(call(&program, X86_64, 0, &[]), ALLOW);
    assert_eq!(call(&program, X86_64, 60, &[]), ALLOW);
    assert_eq!(call(&program, X86_64, 2, &[]), EPERM);
    assert_eq!(call(&program, X86_64, 435, &[]), ENOSYS);
}

#[test]
fn conditions_look_at_all_64_bits_on_x86_64() {
    let program = compiled(allow_list());
    assert_eq!(call(&program, X86_64, 135, &[0]), ALLOW);
    assert_eq!(call(&program, X86_64, 135, &[0xffff_ffff]), ALLOW);
    assert_eq!(call(&program, X86_64, 135, &[1]), EPERM);
    assert_eq!(call(&program, X86_64, 135, &[1 << 32]), EPERM);
    assert_eq!(call(&program, X86_64, 56, &[0x11]), ALLOW);
    assert_eq!(call(&program, X86_64, 56, &[0x1000_0000]), EPERM);
}

#[test]
fn system_calls_newer_than_the_profile_do_not_exist() {
    let program = compiled(allow_list());
    assert_eq!(call(&program, X86_64, 436, &[]), ENOSYS);
    assert_eq!(call(&program, X86_64, 5000, &[]), ENOSYS);
    let permissive = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"}]}));
    assert_eq!(call(&permissive, X86_64, 5000, &[]), ALLOW);
    assert_eq!(call(&permissive, X86_64, 0, &[]), EPERM);
}

#[test]
fn the_32_bit_tables_have_their_own_numbers() {
    let program = compiled(allow_list());
    assert_eq!(call(&program, I386, 3, &[]), ALLOW);
    assert_eq!(call(&program, I386, 0, &[]), EPERM);
    assert_eq!(call(&program, I386, 359, &[]), ALLOW, "socket");
    assert_eq!(call(&program, X86_64, 0x4000_0000, &[]), ALLOW, "x32 read");
    assert_eq!(call(&program, X86_64, 0x4000_0000 | 2, &[]), EPERM, "x32 open");
}

#[test]
fn socketcall_is_allowed_for_the_calls_that_are() {
    let program = compiled(allow_list());
    assert_eq!(call(&program, I386, 102, &[1]), ALLOW, "socketcall(SYS_SOCKET)");
    assert_eq!(call(&program, I386, 102, &[3]), EPERM, "socketcall(SYS_CONNECT)");
}

#[test]
fn architectures_that_are_not_listed_kill() {
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_eq!(
        call(&program, X86_64, 0, &[]),
        ALLOW,
        "the native one is always there"
    );
    assert_eq!(call(&program, I386, 3, &[]), KILL);
    assert_eq!(call(&program, X86_64, 0x4000_0000, &[]), KILL, "x32");
    assert_eq!(
        call(&program, X86_64, u32::MAX, &[]),
        EPERM,
        "a call skipped by a tracer"
    );
    assert_eq!(call(&program, 0xc000_00b7, 0, &[]), KILL, "aarch64");
}

#[test]
fn a_rule_without_arguments_beats_those_with() {
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["ioctl"], "action": "SCMP_ACT_KILL_PROCESS",
         "args": [{"index": 1, "value": 0x5412, "op": "SCMP_CMP_EQ"}]},
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["ioctl"], "action": "SCMP_ACT_TRAP"}]}));
    assert_eq!(call(&program, X86_64, 16, &[0, 0x5412]), ALLOW);
}

#[test]
fn an_argument_named_twice_means_either() {
    let args =
        json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]);
    let either = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["close"], "action": "SCMP_ACT_ALLOW", "args": args}]}));
    assert_eq!(
        [1, 2, 3].map(|fd| call(&either, X86_64, 3, &[fd])),
        [ALLOW, ALLOW, EPERM]
    );
    let args =
        json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]);
    let both = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["dup2"], "action": "SCMP_ACT_ALLOW", "args": args}]}));
    assert_eq!(call(&both, X86_64, 33, &[1, 2]), ALLOW);
    assert_eq!(call(&both, X86_64, 33, &[1, 3]), EPERM);
}

#[test]
fn every_operator_compares_both_halves() {
    let value = 0x1_0000_0005u64;
    let points = [0, 5, value - 1, value, value + 1, 0x2_0000_0000, u64::MAX];
    type Comparison = fn(u64, u64) -> bool;
    let cases: [(&str, Comparison); 6] = [
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_GE", |a, b| a >= b),
        ("SCMP_CMP_GT", |a, b| a > b),
    ];
    for (op, expected) in cases {
        let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["close"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": op}]}]}));
        for point in points {
            let want = if expected(point, value) { ALLOW } else { EPERM };
            assert_eq!(call(&program, X86_64, 3, &[point]), want, "{op} {point:#x}");
        }
    }
}

#[test]
fn actions_carry_their_data() {
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["write"], "action": "SCMP_ACT_KILL"},
        {"names": ["open"], "action": "SCMP_ACT_TRAP"},
        {"names": ["close"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
        {"names": ["stat"], "action": "SCMP_ACT_LOG"},
        {"names": ["fstat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2}]}));
    let got = [0, 1, 2, 3, 4, 5].map(|nr| call(&program, X86_64, nr, &[]));
    assert_eq!(
        got,
        [0x8000_0000, 0, 0x0003_0000, 0x7ff0_0007, 0x7ffc_0000, 0x0005_0002]
    );
}

#[test]
fn notify_needs_a_listener_and_sets_the_flag() {
    let rule = |name: &str| json!([{"names": [name], "action": "SCMP_ACT_NOTIFY"}]);
    let spec = profile(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
        "listenerMetadata": "m", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"], "syscalls": rule("mkdir")}),
    );
    let filter = compile_for(&spec, Arch::X86_64).unwrap();
    assert_eq!(filter.flags, 1 | 8 | 16, "TSYNC, NEW_LISTENER, TSYNC_ESRCH");
    assert_eq!(filter.listener.unwrap().metadata.as_deref(), Some("m"));
    assert!(
        refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule("mkdir")}))
            .contains("listenerPath")
    );
    assert!(
        refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "syscalls": rule("write")}))
            .contains("write")
    );
    assert!(refused(json!({"defaultAction": "SCMP_ACT_NOTIFY"})).contains("defaultAction"));
}

#[test]
fn flags_default_to_spec_allow_and_an_empty_list_to_none() {
    let flags = |value| compile_for(&profile(value), Arch::X86_64).unwrap().flags;
    assert_eq!(flags(json!({"defaultAction": "SCMP_ACT_ALLOW"})), 4);
    assert_eq!(flags(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": []})), 0);
    let all = json!([
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    assert_eq!(
        flags(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": all})),
        2 | 32
    );
}

#[test]
fn bad_profiles_are_refused_by_field() {
    let rule = |extra: serde_json::Value| {
        let mut rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"});
        rule.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})
    };
    assert!(refused(rule(json!({"names": []}))).contains("syscalls[0].names"));
    assert!(refused(rule(json!({"names": [""]}))).contains("syscalls[0].names"));
    assert!(refused(rule(json!({"errnoRet": 1}))).contains("syscalls[0].errnoRet"));
    assert!(refused(rule(json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 4096}))).contains("4096"));
    let arg = json!({"args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]});
    assert!(refused(rule(arg)).contains("args[0].index: 6"));
    assert!(
        refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1})).contains("defaultErrnoRet")
    );
}

#[test]
fn a_profile_beyond_the_kernels_limit_is_an_error() {
    let args: Vec<_> = (0..900)
        .map(|value| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"}))
        .collect();
    let text = refused(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args}]}));
    assert!(text.contains("4096"), "{text}");
}

/// Every third call of a large table, so that the search needs far jumps; checked against the list itself.
#[test]
fn the_search_finds_every_number() {
    let names: Vec<_> = syscalls::x86_64::Sysno::iter()
        .step_by(3)
        .map(|nr| nr.name())
        .collect();
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}));
    for nr in 0..600u32 {
        let named = usize::try_from(nr)
            .ok()
            .and_then(syscalls::x86_64::Sysno::new)
            .map(|nr| nr.name());
        let want = if named.is_some_and(|name| names.contains(&name)) {
            ALLOW
        } else {
            ENOSYS
        };
        assert_eq!(call(&program, X86_64, nr, &[]), want, "{nr}");
    }
    assert!(program.len() < 600, "{}", program.len());
}
