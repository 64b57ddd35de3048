//! System call filters, as the container's process feels them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod oci;

use oci::Bundle;
use serde_json::{Value, json};

fn bundle(name: &str, script: &str, seccomp: Value) -> Bundle {
    let mut bundle = Bundle::new(name, script);
    bundle.config["linux"]["seccomp"] = seccomp;
    bundle
}

/// Everything but these.
fn deny(names: &[&str], action: &str) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": names, "action": action}]})
}

#[test]
fn a_denied_call_fails_with_its_errno() {
    let mut profile = deny(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO");
    let script = "mkdir /tmp/x; echo $?";
    for (errno, text) in [
        (None, "Operation not permitted"),
        (Some(38), "Function not implemented"),
    ] {
        if let Some(errno) = errno {
            profile["syscalls"][0]["errnoRet"] = json!(errno);
        }
        let said = bundle("sec-errno", script, profile.clone()).run();
        assert_eq!(said.out, "1\n", "{said:?}");
        assert!(said.err.contains(text), "{said:?}");
    }
}

#[test]
fn filters_hold_whoever_runs_with_and_without_new_privileges() {
    for no_new_privileges in [true, false] {
        for uid in [0, 1000] {
            let profile = deny(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO");
            let mut bundle = bundle("sec-nnp", "mkdir /tmp/x; cat /proc/self/status", profile);
            bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            bundle.config["process"]["user"] = json!({"uid": uid, "gid": uid});
            let said = bundle.run();
            assert_eq!(said.field("Seccomp"), "2", "{no_new_privileges} {uid}");
            assert_eq!(
                said.field("NoNewPrivs"),
                if no_new_privileges { "1" } else { "0" }
            );
            assert!(said.err.contains("not permitted"), "{said:?}");
        }
    }
}

#[test]
fn a_killing_action_kills() {
    let said = bundle(
        "sec-kill",
        "mkdir /tmp/x; echo survived $?",
        deny(&["mkdir"], "SCMP_ACT_KILL_PROCESS"),
    )
    .run();
    assert!(said.out.contains("survived 159"), "128 and SIGSYS: {said:?}");
}

#[test]
fn arguments_decide() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]});
    let said = bundle("sec-args", "kill -10 1; echo $?; kill -0 1; echo $?", profile).run();
    assert_eq!(said.out, "1\n0\n", "{said:?}");
}

#[test]
fn an_exec_gets_the_filter_too() {
    let bundle = bundle(
        "sec-exec",
        "sleep 1000",
        deny(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO"),
    );
    bundle.start();
    let said = bundle.exec("mkdir /tmp/x; cat /proc/self/status");
    assert_eq!(said.field("Seccomp"), "2");
    assert!(said.err.contains("not permitted"), "{said:?}");
}

#[test]
fn the_profile_of_an_engine_lets_programs_run() {
    let names = "accept accept4 access arch_prctl brk capget capset chdir chmod clone close dup dup2 execve exit exit_group
        faccessat faccessat2 fchdir fchmod fchown fcntl fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getgroups
        getpgrp getpid getppid getrandom getrlimit gettid getuid ioctl lseek lstat madvise mmap mprotect munmap nanosleep
        clock_nanosleep newfstatat open openat pipe pipe2 poll ppoll prctl pread64 prlimit64 read readlink readlinkat rseq
        rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sendfile sendmsg set_robust_list set_tid_address setgid
        setgroups setresgid setresuid setsid setuid sigaltstack stat statfs sysinfo umask uname unlink utimensat vfork wait4
        write writev close_range fork execveat recvmsg waitid";
    let names: Vec<&str> = names.split_whitespace().collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}, {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]});
    for no_new_privileges in [true, false] {
        let mut bundle = bundle(
            "sec-engine",
            "ls / | wc -l; mount -t tmpfs x /tmp; echo $?",
            profile.clone(),
        );
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let said = bundle.run();
        assert!(said.out.ends_with("\n1\n"), "{said:?}");
    }
}

#[test]
fn bad_profiles_are_refused_by_field() {
    let rule = |rule: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
    for (profile, field) in [
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction",
        ),
        (
            rule(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})),
            "write",
        ),
        (
            rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})),
            "listenerPath",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 3})),
            "linux.seccomp.syscalls[0].errnoRet",
        ),
        (
            rule(
                json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}),
            ),
            "args[0].index",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_DANCE"})),
            "SCMP_ACT_DANCE",
        ),
    ] {
        let error = bundle("sec-bad", "true", profile).run().refused(1);
        assert!(error.contains(field), "{field}: {error}");
    }
}
