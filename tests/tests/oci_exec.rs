//! `exec`, `list`, `features`, `spec` and `--version` of `coracle`.

use coracle_tests::bundle::Bundle;
use coracle_tests::cgroup;
use coracle_tests::program::coracle;
use coracle_tests::wait::wait_until;
use serde_json::{Value, json};
use std::path::Path;

fn running() -> Bundle {
    let bundle = Bundle::of_spec_command("sleep 1000");
    bundle.start();
    bundle
}

#[test]
fn it_runs_in_the_containers_namespaces() {
    let bundle = running();
    let inside = bundle
        .exec(
            "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done",
        )
        .ok();
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!(lines.len(), 12);
    assert!(lines.chunks(2).all(|pair| pair[0] == pair[1]), "{inside}");
    assert_eq!(bundle.exec("ls /").ok(), "bin\ndev\netc\nproc\nsys\ntmp\n");
}

#[test]
fn its_code_is_the_programs() {
    let bundle = running();
    assert_eq!(bundle.exec("exit 7").code, 7);
    assert_eq!(bundle.exec("kill -9 $$").code, 137);
    assert!(
        bundle
            .exec_with(&[], &["no-such-program"])
            .refused(255)
            .contains("not found in $PATH")
    );
    assert!(
        bundle
            .exec_with(&[], &["/etc"])
            .refused(255)
            .contains("is a directory")
    );
    assert!(bundle.exec_with(&[], &[]).refused(255).contains("no command"));
}

#[test]
fn a_container_that_is_not_there_or_not_running_is_refused() {
    let bundle = running();
    let missing = bundle.say(&["exec", "no-such-container", "true"]);
    assert!(missing.refused(255).contains("does not exist"));
    let _ = bundle.say(&["kill", &bundle.id, "KILL"]).ok();
    wait_until("it stops", || bundle.state()["status"] == "stopped");
    assert!(bundle.exec("true").refused(255).contains("stopped"));
}

#[test]
fn flags_change_the_process() {
    let bundle = running();
    let user = [
        "--user",
        "1000:1001",
        "--additional-gids",
        "5",
        "-g",
        "6",
        "--cwd",
        "/tmp",
        "--env",
        "A=b c",
        "-e",
        "TERM=dumb",
    ];
    let out = bundle
        .exec_with(&user, &["sh", "-c", "id; pwd; echo $A $TERM $HOME"])
        .ok();
    assert_eq!(out, "uid=1000 gid=1001 groups=5,6\n/tmp\nb c dumb /\n");
    let said = bundle.exec_with(
        &["--cap", "CAP_NET_RAW", "-c", "cap_chown"],
        &["cat", "/proc/self/status"],
    );
    assert_eq!(said.field("CapEff"), "0000000020002421");
    assert_eq!(said.field("CapBnd"), "0000000020002421");
    assert_eq!(said.field("CapInh"), "0000000000000000", "CVE-2022-29162");
    let said = bundle.exec_with(&["--no-new-privs"], &["cat", "/proc/self/status"]);
    assert_eq!(said.field("NoNewPrivs"), "1");
}

#[test]
fn users_are_read_exactly_or_refused() {
    let bundle = running();
    for bad in [
        "0x10",
        " 5",
        "5 ",
        "-1",
        "4294967295",
        "99999999999",
        "root",
        "5:",
        ":5",
        "1:2:3",
    ] {
        let error = bundle
            .exec_with(&[&format!("--user={bad}")], &["id"])
            .refused(255);
        assert!(error.contains("--user"), "{bad}: {error}");
    }
    assert!(
        bundle
            .exec_with(&["--cap", "CAP_NOT"], &["id"])
            .refused(255)
            .contains("CAP_NOT")
    );
}

#[test]
fn a_process_file_says_everything() {
    let bundle = running();
    let process = json!({"args": ["sh", "-c", "id -u; pwd; env"], "cwd": "/tmp", "user": {"uid": 9, "gid": 9},
        "env": ["PATH=/bin", "X=1", "X=2"], "capabilities": {"bounding": ["CAP_FROM_THE_FUTURE"]}});
    let file = bundle.path("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    let out = bundle
        .say(&["exec", "--process", file.to_str().unwrap(), &bundle.id])
        .ok();
    assert!(
        out.starts_with("9\n/tmp\n") && out.contains("X=2") && !out.contains("X=1"),
        "{out}"
    );
    std::fs::write(&file, r#"{"args": ["true"], "cwd": 7}"#).unwrap();
    let error = bundle
        .say(&["exec", "--process", file.to_str().unwrap(), &bundle.id])
        .refused(255);
    assert!(error.contains("process.json"), "{error}");
}

#[test]
fn detached_it_returns_at_once_and_writes_its_id() {
    let bundle = running();
    let file = bundle.path("pid");
    let mut command = bundle.coracle(&[
        "exec",
        "-d",
        "--pid-file",
        file.to_str().unwrap(),
        &bundle.id,
        "sleep",
        "1001",
    ]);
    assert!(
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let pid = std::fs::read_to_string(&file).unwrap();
    // What it was given is there to be read a moment after the execve has closed what it had to close.
    wait_until("the program", || {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap() == "sleep\x001001\0"
    });
    assert!(
        bundle
            .control("pids", "cgroup.procs")
            .lines()
            .any(|line| line == pid)
    );
}

#[test]
fn only_the_standard_streams_are_open() {
    let bundle = running();
    // The shell that expands the pattern has the directory open for that moment.
    let out = bundle.exec("echo /proc/self/fd/*").ok();
    assert_eq!(
        out.trim(),
        "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3"
    );
    for cwd in [
        "/proc/self/fd/3",
        "/proc/self/fd/4",
        "/proc/self/fd/7",
        "/proc/self/fd/9/..",
    ] {
        let error = bundle.exec_with(&["--cwd", cwd], &["pwd"]).refused(255);
        assert!(error.contains("process.cwd"), "{cwd}: {error}");
    }
}

#[test]
fn descriptors_are_passed_on_when_asked_for() {
    let bundle = running();
    let file = bundle.path("given");
    std::fs::write(&file, "from outside").unwrap();
    let words = format!(
        "exec 3<{}; exec {} --root {} exec --preserve-fds 1 {} sh -c 'cat <&3'",
        file.display(),
        coracle().get_program().to_str().unwrap(),
        bundle.path("state").display(),
        bundle.id
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &words])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "from outside",
        "{output:?}"
    );
    let error = bundle
        .exec_with(&["--preserve-fds", "40"], &["true"])
        .refused(255);
    assert!(error.contains("--preserve-fds 40"), "{error}");
}

#[test]
fn a_terminal_without_a_socket_cannot_be_detached() {
    let bundle = running();
    let error = bundle.exec_with(&["--tty", "--detach"], &["sh"]).refused(255);
    assert!(error.contains("console socket"), "{error}");
    let out = bundle.exec_with(&["--tty"], &["tty"]).ok();
    assert_eq!(out.trim(), "/dev/pts/0");
}

#[test]
fn it_can_start_in_a_cgroup_below_the_containers_only() {
    let bundle = running();
    for controller in [
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "name=systemd",
    ] {
        let Some(mount) = cgroup::hierarchy(controller) else {
            continue;
        };
        let dir = mount.join(bundle.cgroup.trim_start_matches('/')).join("sub");
        std::fs::create_dir(&dir).unwrap();
        if controller == "cpuset" {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = std::fs::read_to_string(mount.join(file)).unwrap();
                std::fs::write(dir.join(file), value).unwrap();
            }
        }
    }
    let out = bundle.exec_with(&["--cgroup", "pids,memory:sub"], &["cat", "/proc/self/cgroup"]);
    // No hierarchy has both; each alone has.
    assert!(out.refused(255).contains("no hierarchy"));
    let out = bundle
        .exec_with(
            &["--cgroup", "pids:sub", "--cgroup", "memory:/sub"],
            &["cat", "/proc/self/cgroup"],
        )
        .ok();
    assert!(out.lines().any(|line| line.contains(":pids:/sub")), "{out}");
    assert!(out.lines().any(|line| line.ends_with(":cpu:/")), "{out}");
    for bad in ["../..", "pids:../x", "/.."] {
        assert!(
            bundle
                .exec_with(&["--cgroup", bad], &["true"])
                .refused(255)
                .contains("below"),
            "{bad}"
        );
    }
    assert!(
        bundle
            .exec_with(&["--cgroup", "pids:missing"], &["true"])
            .refused(255)
            .contains("missing")
    );
}

#[test]
fn a_paused_container_is_refused_unless_told_otherwise() {
    let bundle = running();
    let state = bundle.cgroup_dir("freezer").join("freezer.state");
    std::fs::write(&state, "FROZEN").unwrap();
    wait_until("it freezes", || {
        std::fs::read_to_string(&state).unwrap().trim() == "FROZEN"
    });
    let refused = bundle.exec("true");
    std::fs::write(&state, "THAWED").unwrap();
    assert!(refused.refused(255).contains("paused"));
    let _ = bundle.exec("true").ok();
}

/// CVE-2016-9962: with the default capabilities nothing of the joining process can be reached from inside.
#[test]
fn the_joining_process_cannot_be_looked_into() {
    let script = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *)
        ls $p/fd >/dev/null 2>&1 && readlink $p/exe >> /tmp/seen 2>/dev/null;; esac; done; done";
    let mut bundle = Bundle::of_spec_command(script);
    bundle.spec["root"]["readonly"] = json!(false);
    bundle.start();
    for _ in 0..50 {
        let _ = bundle.exec("true").ok();
    }
    let seen = std::fs::read_to_string(bundle.root("tmp/seen")).unwrap_or_default();
    assert!(
        seen.lines().all(|line| line.starts_with("/bin/busybox")),
        "{seen}"
    );
}

/// The same for a container that may trace what it likes (CAP_SYS_PTRACE of the host's user namespace, where dumpable
/// does not count): it finds nothing of the host, and no capability but a few that a process needs to become another.
#[test]
fn a_container_that_may_trace_finds_nothing_in_the_joining_process() {
    // Each process it meets is asked for the host's root, for directories, for a program file that can be written, and
    // for its capabilities. Only builtins: one that is joining is there for less than a millisecond.
    let script = r#"while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) continue;; esac
        [ -e $p/root$HOST -o -e $p/cwd$HOST ] && echo "root of the host in $p" >> /tmp/found
        for f in $p/fd/*; do [ -d $f ] && echo "directory $f" >> /tmp/found; done
        [ $p/exe -ef /bin/busybox ] && continue
        while read -r k v; do [ "$k" = CapPrm: ] && echo $v >> /tmp/capabilities; done 2>/dev/null < $p/status
        done 2>/dev/null; done"#;
    let mut bundle = Bundle::of_spec_command(script);
    bundle.spec["root"]["readonly"] = json!(false);
    let host = format!("HOST={}", bundle.path("").display());
    bundle.spec["process"]["env"]
        .as_array_mut()
        .unwrap()
        .push(host.into());
    let own = json!(["CAP_SYS_PTRACE", "CAP_KILL"]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.spec["process"]["capabilities"][set] = own.clone();
    }
    bundle.start();
    let seen = bundle.root("tmp/capabilities");
    let mut execs = 0;
    // Until it has met some of them on their way.
    while execs < 100 || (execs < 2000 && std::fs::read(&seen).is_ok_and(|seen| seen.len() < 10 * 17)) {
        let _ = bundle.exec("true").ok();
        execs += 1;
    }
    let found = std::fs::read_to_string(bundle.root("tmp/found")).unwrap_or_default();
    let first: Vec<&str> = found.lines().take(4).collect();
    assert_eq!(first, Vec::<&str>::new(), "in {execs} processes");
    let bit = |number: u32| 1_u64 << number;
    // CAP_KILL, CAP_SYS_PTRACE, and CAP_SETGID, CAP_SETUID, CAP_SYS_RESOURCE (there are rlimits).
    let expected = bit(5) | bit(19) | bit(6) | bit(7) | bit(24);
    for capabilities in std::fs::read_to_string(&seen).unwrap_or_default().lines() {
        let capabilities = u64::from_str_radix(capabilities, 16).unwrap();
        assert_eq!(capabilities & !expected, 0, "{capabilities:x}");
    }
}

/// A process that was never counted does not fail for want of a place in the count.
#[test]
fn a_full_cgroup_can_be_entered() {
    let mut bundle = Bundle::of_spec_command("sleep 1000");
    bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 1});
    bundle.start();
    // No fork: the shell has no place for one.
    assert_eq!(bundle.exec("echo entered").ok(), "entered\n");
}

#[test]
fn list_shows_each_container_as_runc_does() {
    let bundle = running();
    let table = bundle.say(&["list"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!((row[0], row[2], row[5]), (bundle.id.as_str(), "running", "root"));
    assert_eq!(bundle.say(&["list", "-q"]).ok(), format!("{}\n", bundle.id));
    let all: Value = serde_json::from_str(&bundle.say(&["list", "--format", "json"]).ok()).unwrap();
    assert_eq!(all[0]["id"], bundle.id.as_str());
    assert_eq!(all[0]["status"], "running");
    assert!(
        all[0]["pid"].as_i64().unwrap() > 0 && all[0]["rootfs"].is_string() && all[0]["created"].is_string()
    );
    bundle.ok(&["delete", "--force"]);
    assert_eq!(bundle.say(&["list", "--format", "json"]).ok(), "[]\n");
    assert_eq!(bundle.say(&["list", "-q"]).ok(), "");
}

#[test]
fn features_and_version_agree() {
    let features: Value =
        serde_json::from_slice(&coracle().arg("features").output().unwrap().stdout).unwrap();
    assert_eq!(features["ociVersionMax"], "1.3.0");
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    let version = String::from_utf8(coracle().arg("--version").output().unwrap().stdout).unwrap();
    assert!(
        version.starts_with("coracle version ") && version.contains("\nspec: 1.3.0"),
        "{version}"
    );
}

#[test]
fn spec_writes_a_configuration_once() {
    let folder = tempfile::tempdir().unwrap();
    let spec = |flags: &[&str]| {
        coracle()
            .arg("spec")
            .args(flags)
            .arg("--bundle")
            .arg(folder.path())
            .output()
            .unwrap()
    };
    let read = || -> Value {
        serde_json::from_slice(&std::fs::read(folder.path().join("config.json")).unwrap()).unwrap()
    };
    assert!(spec(&[]).status.success());
    assert_eq!(read()["process"]["args"], json!(["sh"]));
    let again = spec(&[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("config.json"));
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(spec(&["--rootless"]).status.success());
    let namespaces = read()["linux"]["namespaces"].to_string();
    assert!(
        namespaces.contains("user") && !namespaces.contains("network"),
        "{namespaces}"
    );
    let nowhere = coracle()
        .args(["spec", "--bundle"])
        .arg(Path::new("/no/such/folder"))
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn a_process_file_without_capabilities_and_score_has_the_containers() {
    let mut bundle = Bundle::of_spec_command("sleep 1000");
    bundle.spec["process"]["oomScoreAdj"] = json!(321);
    bundle.start();
    let file = bundle.path("process.json");
    let script = "grep CapEff /proc/self/status; cat /proc/self/oom_score_adj";
    let process =
        json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    std::fs::write(&file, process.to_string()).unwrap();
    let own = bundle.exec(script).ok();
    assert!(own.ends_with("\n321\n"), "{own}");
    let args = ["exec", "--process", file.to_str().unwrap(), &bundle.id];
    assert_eq!(bundle.say(&args).ok(), own);
}
