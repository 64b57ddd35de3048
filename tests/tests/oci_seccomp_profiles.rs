//! Profiles in the forms that engines and recorders of many years write: each starts its container, and denies what it should
//! with the errno that it should.

use coracle_tests::bundle::Bundle;
use serde_json::{Value, json};

/// What every general profile of the field allows since about 2016, newest calls left out.
const ALLOWED: &str = "accept accept4 access alarm bind brk capget capset chdir chmod chown clock_getres clock_gettime \
    clock_nanosleep close connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait \
    epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat fadvise64 fallocate fchdir fchmod fchmodat fchown \
    fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex \
    getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid \
    getpriority getrandom getresgid getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt \
    get_thread_area gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch \
    io_cancel ioctl io_destroy io_getevents ioprio_get ioprio_set io_setup io_submit kill lchown lgetxattr link linkat \
    listen listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise mincore mkdir mkdirat mknod mknodat \
    mlock mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap msgctl msgget \
    msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat pause pipe pipe2 poll ppoll prctl pread64 \
    preadv prlimit64 pselect6 pwrite64 pwritev read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg \
    remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr \
    sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity \
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile \
    sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid \
    setreuid setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setxattr shmat shmctl shmdt \
    shmget shutdown sigaltstack signalfd signalfd4 socket socketpair splice stat statfs symlink symlinkat sync \
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timerfd_create timerfd_gettime timerfd_settime \
    timer_getoverrun timer_gettime timer_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes \
    vfork vmsplice wait4 waitid write writev arch_prctl modify_ldt";

/// Those that libcs of today try first.
const NEWER: &str = "clone3 close_range epoll_pwait2 faccessat2 futex_waitv landlock_create_ruleset membarrier openat2 \
    pidfd_getfd pidfd_open pidfd_send_signal rseq statx";

fn names(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn architectures() -> Value {
    json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
}

/// clone(2) without flags for namespaces: the mask of CLONE_NEWNS and the like.
fn clone_without_namespaces() -> Value {
    json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 0x7E02_0000_u32, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]})
}

fn personalities() -> Value {
    let one = |value: u32| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    json!([one(0), one(8), one(0x20000), one(0x20008), one(0xFFFF_FFFF)])
}

fn with_personalities(rules: &[Value]) -> Value {
    let mut all = rules.to_vec();
    all.extend(personalities().as_array().unwrap().clone());
    Value::from(all)
}

/// Their names, and what an unshare(2) of a new namespace answers under each.
fn profiles() -> Vec<(&'static str, Value, &'static str)> {
    let newest = format!("{ALLOWED} {NEWER}");
    let of_2022 = format!("{ALLOWED} close_range faccessat2 openat2 rseq statx");
    let old = json!({"names": names(ALLOWED), "action": "SCMP_ACT_ALLOW"});
    let all = json!({"names": (names(&newest)), "action": "SCMP_ACT_ALLOW", "args": []});
    let no_clone3 = json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38});
    let refused = "Operation not permitted";
    vec![
        (
            "docker of 2017, when statx was new",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures(),
                "syscalls": with_personalities(&[old.clone(), clone_without_namespaces()])}),
            refused,
        ),
        (
            "docker of 2022, with clone3 answered ENOSYS",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures(),
                "syscalls": with_personalities(&[json!({"names": (names(&of_2022)),
                    "action": "SCMP_ACT_ALLOW"}), clone_without_namespaces(), no_clone3.clone()])}),
            refused,
        ),
        (
            "containerd: one rule for each name",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": names(ALLOWED).into_iter().map(|name| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": null}))
                    .chain([clone_without_namespaces(), no_clone3]).collect::<Vec<_>>()}),
            refused,
        ),
        (
            "podman and CRI-O since 2021: ENOSYS by default, EPERM for what is known and denied",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": architectures(),
                "syscalls": [{"names": ["bdflush", "io_pgetevents", "kexec_load", "mount", "umount2", "unshare", "setns", "pivot_root"],
                    "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM"}, all, clone_without_namespaces()]}),
            refused,
        ),
        (
            "CRI-O of 2018: names that no kernel has",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures(),
                "syscalls": [old, {"names": ["_llseek", "_newselect", "chown32", "fadvise64_64", "send", "recv", "socketcall",
                    "waitpid", "ugetrlimit"], "action": "SCMP_ACT_ALLOW"}, clone_without_namespaces()]}),
            refused,
        ),
        (
            "security-profiles-operator, made by hand of a recording",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": recorded()}]}),
            refused,
        ),
        (
            "oci-seccomp-bpf-hook: all fields there, empty",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [{"names": recorded(),
                "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}, "errnoRet": null}]}),
            refused,
        ),
        (
            "a recorder in its complaining mode",
            json!({"defaultAction": "SCMP_ACT_LOG", "architectures": [], "syscalls": [{"names": recorded(), "action": "SCMP_ACT_ALLOW"}]}),
            "",
        ),
        (
            "Kubernetes' audit profile",
            json!({"defaultAction": "SCMP_ACT_LOG"}),
            "",
        ),
        (
            "a list of what is denied, as hardening guides have it",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names("acct add_key bpf keyctl mount move_pages ptrace \
                request_key unshare userfaultfd"), "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}),
            "Permission denied",
        ),
        (
            "with flags and an action for a violation that is fatal elsewhere",
            json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "architectures": architectures(), "flags": ["SECCOMP_FILTER_FLAG_LOG",
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW"], "syscalls": [all, {"names": ["clone"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["unshare"], "action": "SCMP_ACT_ERRNO"}]}),
            refused,
        ),
    ]
}

/// What busybox calls here, and what no_new_privs does not spare.
fn recorded() -> Vec<&'static str> {
    names(
        "arch_prctl brk capset clone close dup2 execve exit_group fcntl fork fstat getcwd geteuid getpid getppid getrandom \
         getuid ioctl mmap mprotect munmap newfstatat open openat poll prctl prlimit64 read readlink rseq rt_sigaction \
         rt_sigprocmask rt_sigreturn set_robust_list set_tid_address setgid setuid stat uname vfork wait4 write",
    )
}

#[test]
fn profiles_of_the_field_start_their_containers_and_deny_what_they_should() {
    for (name, profile, denied) in profiles() {
        for no_new_privileges in [true, false] {
            let mut bundle = Bundle::of_spec_command("cat /proc/self/status; unshare -u true; echo end");
            bundle.spec["linux"]["seccomp"] = profile.clone();
            bundle.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            // Only the filter is to deny it.
            for set in ["bounding", "effective", "permitted"] {
                let held = bundle.spec["process"]["capabilities"][set]
                    .as_array_mut()
                    .unwrap();
                held.push(json!("CAP_SYS_ADMIN"));
            }
            let said = bundle.call(&["run"]);
            assert!(
                said.out.ends_with("end\n"),
                "{name} {no_new_privileges}: {said:?}"
            );
            assert_eq!(said.field("Seccomp"), "2", "{name}");
            match denied {
                "" => assert_eq!(said.err, "", "{name}"),
                denied => assert!(said.err.contains(denied), "{name} {no_new_privileges}: {said:?}"),
            }
        }
    }
}

/// The profile that Debian's podman gives its containers, where it is installed.
#[test]
fn podmans_own_file_is_taken() {
    let Ok(text) = std::fs::read("/usr/share/containers/seccomp.json") else {
        eprintln!("skipped: no /usr/share/containers/seccomp.json here");
        return;
    };
    let mut profile: Value = serde_json::from_slice(&text).unwrap();
    // An engine picks the architectures of the host, and the rules whose conditions hold.
    profile["architectures"] = architectures();
    let rules = profile["syscalls"].as_array_mut().unwrap();
    let holds = |rule: &Value| match &rule["includes"] {
        Value::Object(conditions) if !conditions.is_empty() => {
            let arches = conditions.get("arches").and_then(Value::as_array);
            arches.is_some_and(|arches| arches.contains(&json!("amd64")))
        }
        _ => true,
    };
    rules.retain(holds);
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::of_spec_command("cat /proc/self/status; echo end");
        bundle.spec["linux"]["seccomp"] = profile.clone();
        bundle.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let said = bundle.call(&["run"]);
        assert!(said.out.ends_with("end\n"), "{no_new_privileges}: {said:?}");
        assert_eq!(said.field("Seccomp"), "2");
    }
}
