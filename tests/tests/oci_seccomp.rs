//! System call filters, as the container's process feels them.

use coracle_tests::bundle::Bundle;
use coracle_tests::wait::wait_until;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

fn bundle(script: &str, seccomp: Value) -> Bundle {
    let mut bundle = Bundle::of_spec_command(script);
    bundle.spec["linux"]["seccomp"] = seccomp;
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
        let said = bundle(script, profile.clone()).call(&["run"]);
        assert_eq!(said.out, "1\n", "{said:?}");
        assert!(said.err.contains(text), "{said:?}");
    }
}

#[test]
fn filters_hold_whoever_runs_with_and_without_new_privileges() {
    for no_new_privileges in [true, false] {
        for uid in [0, 1000] {
            let profile = deny(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO");
            let mut bundle = bundle("mkdir /tmp/x; cat /proc/self/status", profile);
            bundle.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            bundle.spec["process"]["user"] = json!({"uid": uid, "gid": uid});
            let said = bundle.call(&["run"]);
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
        "mkdir /tmp/x; echo survived $?",
        deny(&["mkdir"], "SCMP_ACT_KILL_PROCESS"),
    )
    .call(&["run"]);
    assert!(said.out.contains("survived 159"), "128 and SIGSYS: {said:?}");
}

#[test]
fn arguments_decide() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]});
    let said = bundle("kill -10 1; echo $?; kill -0 1; echo $?", profile).call(&["run"]);
    assert_eq!(said.out, "1\n0\n", "{said:?}");
}

#[test]
fn an_exec_gets_the_filter_too() {
    let bundle = bundle("sleep 1000", deny(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO"));
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
        let mut bundle = bundle("ls / | wc -l; mount -t tmpfs x /tmp; echo $?", profile.clone());
        bundle.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let said = bundle.call(&["run"]);
        assert!(said.out.ends_with("\n1\n"), "{said:?}");
    }
}

/// The agent takes the listener and lets go of it again: the kernel answers ENOSYS to calls nobody serves any more.
#[test]
fn an_agent_gets_the_listener_of_run_and_of_exec() {
    let mut bundle = Bundle::of_spec_command("mkdir /tmp/x; sleep 1000");
    let path = bundle.path("agent.sock");
    let mut profile = deny(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY");
    profile["listenerPath"] = json!(path);
    profile["listenerMetadata"] = json!("for you");
    bundle.spec["linux"]["seccomp"] = profile;
    assert!(bundle.fails(&["run"]).contains("agent.sock"), "nobody listens");

    let listener = UnixListener::bind(&path).unwrap();
    let agent = std::thread::spawn(move || [(); 2].map(|()| take_listener(&listener)));
    bundle.start();
    let said = bundle.exec("mkdir /tmp/y");
    assert!(said.err.contains("Function not implemented"), "{said:?}");
    let [first, second] = agent.join().unwrap();
    for message in [&first, &second] {
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!(message["metadata"], "for you");
        assert_eq!(message["state"]["id"], bundle.id.as_str());
        assert_eq!(message["state"]["bundle"], bundle.path("").to_str().unwrap());
    }
    assert_eq!(
        (&first["state"]["status"], &second["state"]["status"]),
        (&json!("creating"), &json!("running"))
    );
    assert_eq!(first["pid"], first["state"]["pid"]);
    assert_ne!(second["pid"], second["state"]["pid"]);
}

fn take_listener(listener: &UnixListener) -> Value {
    let (connection, _) = listener.accept().unwrap();
    let mut text = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut text)];
    let message = recvmsg::<()>(
        connection.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )
    .unwrap();
    let fds: Vec<RawFd> = message
        .cmsgs()
        .unwrap()
        .flat_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds,
            _ => Vec::new(),
        })
        .collect();
    let length = message.bytes;
    assert_eq!(fds.len(), 1);
    nix::unistd::close(fds[0]).unwrap();
    serde_json::from_slice(&text[..length]).unwrap()
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
        let error = bundle("true", profile).fails(&["run"]);
        assert!(error.contains(field), "{field}: {error}");
    }
}

/// The first process can neither report nor exit: it must end all the same, and its maker must not wait for it.
#[test]
fn a_filter_that_denies_everything_fails_at_once() {
    let nothing = json!({"defaultAction": "SCMP_ACT_ERRNO"});
    let no_word = deny(
        &["execve", "sendmsg", "write", "exit", "exit_group"],
        "SCMP_ACT_ERRNO",
    );
    for (profile, no_new_privileges) in [
        (&nothing, true),
        (&nothing, false),
        (&no_word, true),
        (&no_word, false),
    ] {
        // With a PID namespace of others it is loaded before the gate.
        for own_pid_namespace in [true, false] {
            let mut bundle = bundle("true", profile.clone());
            bundle.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            if !own_pid_namespace {
                bundle.namespaces(&["mount", "uts"]);
            }
            for command in [&["run"][..], &["run", "--detach"], &["start"]] {
                let begun = Instant::now();
                if command == ["start"] {
                    bundle.create();
                }
                let said = bundle.call(command);
                if command == ["start"] {
                    assert_eq!(bundle.state()["status"], "stopped");
                    bundle.ok(&["delete"]);
                }
                assert!(begun.elapsed() < Duration::from_secs(5), "{said:?}");
                assert_ne!(said.code, 0, "{said:?}");
                assert!(said.err.contains("linux.seccomp"), "{said:?}");
                bundle.assert_nothing_left();
            }
        }
    }
}

#[test]
fn an_exec_under_a_filter_that_denies_everything_names_it() {
    // What a shell needs that sleeps; the filter of the exec is that of the container.
    let names = ["nanosleep", "clock_nanosleep"]
        .iter()
        .chain(STATIC_PROGRAM)
        .chain(&["execve"]);
    let mut bundle = bundle("", allow(&names.copied().collect::<Vec<_>>()));
    bundle.spec["process"]["args"] = json!(["sleep", "1000"]);
    bundle.spec["process"]["noNewPrivileges"] = json!(true);
    bundle.start();
    let mut spec = bundle.spec["process"].clone();
    spec["args"] = json!(["true"]);
    let process = bundle.path("process.json");
    std::fs::write(&process, spec.to_string()).unwrap();
    let exec = || bundle.say(&["exec", "--process", process.to_str().unwrap(), &bundle.id]);
    assert_eq!(exec().code, 0, "{:?}", exec());
    // The filter is read from the bundle's copy.
    let copy = bundle.path("state").join(&bundle.id).join("config.json");
    let mut stored: Value = serde_json::from_slice(&std::fs::read(&copy).unwrap()).unwrap();
    stored["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO"});
    std::fs::write(&copy, stored.to_string()).unwrap();
    let begun = Instant::now();
    let said = exec();
    assert!(begun.elapsed() < Duration::from_secs(5), "{said:?}");
    assert_eq!(said.code, 255, "{said:?}");
    assert!(said.err.contains("linux.seccomp"), "{said:?}");
}

/// Profiles that were written before these calls existed, or made for one program (faults of the field, A4). crun starts
/// them; what no_new_privs does not spare is giving CAP_SYS_ADMIN up.
#[test]
fn a_start_needs_nothing_that_its_payload_does_not_need() {
    let newer = ["close_range", "openat2", "faccessat2", "clone3", "statx", "rseq"];
    let own = [
        "access",
        "close",
        "fcntl",
        "getcwd",
        "newfstatat",
        "prctl",
        "read",
        "recvmsg",
        "sendmsg",
        "setgroups",
        "setresgid",
        "setresuid",
        "setuid",
        "capget",
        "seccomp",
        "munmap",
    ];
    let each = newer.iter().chain(&own).map(|name| vec![*name]);
    let all = [
        newer.to_vec(),
        own.to_vec(),
        [newer.as_slice(), own.as_slice()].concat(),
    ];
    for denied in each.chain(all) {
        for no_new_privileges in [true, false] {
            for uid in [0, 1000] {
                let mut bundle = bundle("", deny(&denied, "SCMP_ACT_ERRNO"));
                bundle.spec["process"]["args"] = json!(["echo", "here"]);
                bundle.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
                bundle.spec["process"]["user"] = json!({"uid": uid, "gid": uid});
                let said = bundle.call(&["run"]);
                assert_eq!(
                    (said.code, said.out.as_str()),
                    (0, "here\n"),
                    "{denied:?} {no_new_privileges} {uid}: {said:?}"
                );
            }
        }
    }
}

/// As recorders of system calls make them (security-profiles-operator, oci-seccomp-bpf-hook): what the program called.
#[test]
fn a_recorded_profile_starts_its_program() {
    for (no_new_privileges, of_the_runtime) in [(true, &["execve"][..]), (false, &["execve", "capset"])] {
        let names: Vec<&str> = STATIC_PROGRAM.iter().chain(of_the_runtime).copied().collect();
        let mut bundle = bundle("", allow(&names));
        bundle.spec["process"]["args"] = json!(["echo", "here"]);
        bundle.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let said = bundle.call(&["run"]);
        assert_eq!(
            (said.code, said.out.as_str()),
            (0, "here\n"),
            "{no_new_privileges}: {said:?}"
        );
        bundle.create();
        bundle.ok(&["start"]);
        wait_until("its word", || bundle.output() == "here\n");
    }
}

/// Under the filter the process holds what it was given, and nothing of what it took to load that.
#[test]
fn the_privilege_to_load_a_filter_is_given_up() {
    for uid in [0, 1000] {
        for own_pid_namespace in [true, false] {
            let mut bundle = bundle("cat /proc/self/status", deny(&["mkdir"], "SCMP_ACT_ERRNO"));
            bundle.spec["process"]["noNewPrivileges"] = json!(false);
            bundle.spec["process"]["user"] = json!({"uid": uid, "gid": uid});
            if !own_pid_namespace {
                bundle.namespaces(&["mount", "uts"]);
            }
            let said = bundle.call(&["run"]);
            for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
                let held = u64::from_str_radix(said.field(set), 16).unwrap();
                assert_eq!(held & CAP_SYS_ADMIN, 0, "{set} {uid}: {said:?}");
            }
        }
    }
}

/// What happens between the gate and the payload is told to whoever starts it (faults of the field, A18).
#[test]
fn a_program_that_is_gone_at_the_start_is_named() {
    for seccomp in [json!(null), deny(&["write", "sendmsg"], "SCMP_ACT_ERRNO")] {
        let mut bundle = bundle("true", seccomp);
        bundle.spec["process"]["args"] = json!(["/bin/soon-gone"]);
        std::fs::copy(bundle.root("bin/busybox"), bundle.root("bin/soon-gone")).unwrap();
        bundle.create();
        std::fs::remove_file(bundle.root("bin/soon-gone")).unwrap();
        let error = bundle.fails(&["start"]);
        assert!(
            error.contains("/bin/soon-gone") && error.contains("No such file"),
            "{error}"
        );
        assert_eq!(bundle.state()["status"], "stopped");
        bundle.ok(&["delete"]);
    }
}

fn allow(names: &[&str]) -> Value {
    json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]})
}

/// What Debian's static busybox calls from its first instruction to its end.
const STATIC_PROGRAM: &[&str] = &[
    "arch_prctl",
    "brk",
    "exit_group",
    "getpid",
    "getrandom",
    "getuid",
    "mprotect",
    "newfstatat",
    "fstat",
    "prctl",
    "prlimit64",
    "readlink",
    "rseq",
    "set_robust_list",
    "set_tid_address",
    "uname",
    "write",
];

const CAP_SYS_ADMIN: u64 = 1 << 21;
