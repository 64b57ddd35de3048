//! The life of a container on the command line: what runc's users rely on.

use coracle_tests::bundle::Bundle;
use coracle_tests::busybox::executable;
use coracle_tests::program::{self, Said};
use coracle_tests::wait::wait_until;
use serde_json::json;
use std::process::{Command, Stdio};

#[test]
fn a_container_is_created_started_and_deleted() {
    let bundle = Bundle::new("echo started; exec sleep 1000");
    let pid = bundle.create();
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], pid);
    assert_eq!(state["id"], bundle.id);
    assert_eq!(state["bundle"], bundle.path("").to_str().unwrap());
    assert_eq!(bundle.output(), "");
    bundle.ok(&["start"]);
    assert_eq!(bundle.state()["status"], "running");
    wait_until("its first words", || bundle.output() == "started\n");
    assert!(bundle.fails(&["start"]).contains("running"));
    assert!(bundle.fails(&["delete"]).contains("cannot delete container"));
    let kill = bundle.say(&["kill", &bundle.id, "KILL"]);
    assert_eq!(kill.code, 0, "{kill:?}");
    wait_until("its end", || bundle.state()["status"] == "stopped");
    assert_eq!(bundle.state()["pid"], 0);
    assert!(bundle.fails(&["kill"]).contains("container not running"));
    bundle.ok(&["delete"]);
    assert!(bundle.fails(&["state"]).contains("does not exist"));
    bundle.assert_nothing_left();
}

#[test]
fn the_exit_code_is_the_payloads() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$; sleep 9", 137),
        ("kill -TERM $$; exit 3", 3),
    ] {
        let mut bundle = Bundle::new(script);
        // Without a PID namespace of its own a process is not protected from its own signals.
        bundle.namespaces(if code == 137 {
            &["mount", "uts"]
        } else {
            &["mount", "pid", "uts"]
        });
        let output = bundle.call(&["run"]);
        assert_eq!(output.code, code, "{script}: {}", output.all());
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_name_is_taken_once() {
    let bundle = Bundle::new("sleep 1000");
    bundle.create();
    assert!(
        bundle
            .fails(&["create"])
            .contains("container with given ID already exists")
    );
    assert!(
        bundle
            .fails(&["run"])
            .contains("container with given ID already exists")
    );
    assert_eq!(bundle.state()["status"], "created");
}

#[test]
fn names_that_are_no_file_names_are_refused() {
    let bundle = Bundle::new("true");
    for name in ["..", "a/b", "../../x", "", "a b"] {
        for command in ["create", "run", "state", "start", "kill", "delete"] {
            let output = bundle.say(&[command, "--", name]);
            assert_eq!(output.code, 1, "{command} {name:?}");
            assert!(
                output.all().contains("invalid container id"),
                "{command} {name:?}: {}",
                output.all()
            );
        }
    }
}

#[test]
fn a_program_that_is_missing_fails_the_creation() {
    let mut bundle = Bundle::new("");
    for (program, words) in [
        ("nowhere", "executable file not found in $PATH"),
        ("/bin/nowhere", "no such file or directory"),
        ("/etc", "is a directory"),
    ] {
        bundle.spec["process"]["args"] = json!([program]);
        for command in ["create", "run"] {
            let error = bundle.fails(&[command]);
            assert!(error.contains(words), "{error}");
            bundle.assert_nothing_left();
        }
    }
}

#[test]
fn an_execve_that_fails_is_reported_by_start() {
    let mut bundle = Bundle::new("");
    executable(&bundle.root("bin/broken"), b"\x7fELF but not really");
    bundle.spec["process"]["args"] = json!(["/bin/broken"]);
    bundle.create();
    let error = bundle.fails(&["start"]);
    assert!(
        error.contains("/bin/broken") && error.contains("Exec format error"),
        "{error}"
    );
    bundle.ok(&["delete"]);
    let error = bundle.fails(&["run"]);
    assert!(error.contains("Exec format error"), "{error}");
}

#[test]
fn a_created_container_can_be_deleted_without_force() {
    let bundle = Bundle::new("true");
    bundle.create();
    bundle.ok(&["delete"]);
    bundle.assert_nothing_left();
}

#[test]
fn deleting_with_force_needs_no_container() {
    let bundle = Bundle::new("true");
    assert!(bundle.fails(&["delete"]).contains("does not exist"));
    bundle.ok(&["delete", "--force"]);
}

#[test]
fn a_detached_run_returns_while_it_runs() {
    let bundle = Bundle::new("exec sleep 1000");
    let status = bundle
        .coracle(&["run", "--detach", &bundle.id])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    assert_eq!(bundle.state()["status"], "running");
    bundle.ok(&["delete", "-f"]);
}

#[test]
fn a_run_with_keep_leaves_a_stopped_container() {
    let bundle = Bundle::new("true");
    bundle.ok(&["run", "--keep"]);
    assert_eq!(bundle.state()["status"], "stopped");
    bundle.ok(&["delete"]);
}

#[test]
fn a_run_in_the_foreground_passes_signals_on() {
    let bundle = Bundle::new("trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    let mut child = bundle
        .coracle(&["run", &bundle.id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    bundle.assert_nothing_left();
}

#[test]
fn ending_the_first_process_ends_all_also_without_a_pid_namespace() {
    let mut bundle = Bundle::new("sleep 1000 & sleep 1000 & echo $!; exec sleep 1000");
    bundle.namespaces(&["mount", "uts"]);
    bundle.create();
    bundle.ok(&["start"]);
    wait_until("its children", || !bundle.output().is_empty());
    let kill = bundle.say(&["kill", &bundle.id, "9"]);
    assert_eq!(kill.code, 0, "{kill:?}");
    bundle.ok(&["delete"]);
    bundle.assert_nothing_left();
}

#[test]
fn a_frozen_container_can_be_killed() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create();
    bundle.ok(&["start"]);
    let state = bundle.cgroup_dir("freezer").join("freezer.state");
    std::fs::write(state, "FROZEN").unwrap();
    wait_until("it is frozen", || bundle.state()["status"] == "paused");
    let _ = bundle.say(&["kill", &bundle.id, "KILL"]).ok();
    wait_until("it ends", || bundle.state()["status"] == "stopped");
    bundle.ok(&["delete"]);
}

/// LISTEN_FDS means the process that LISTEN_PID names (sd_listen_fds(3)); in another it is only left over.
#[test]
fn sockets_of_another_service_are_not_looked_for() {
    let bundle = Bundle::new("echo sockets: $LISTEN_FDS");
    let mut command = bundle.coracle(&["run", &bundle.id]);
    command.env("LISTEN_FDS", "7").env("LISTEN_PID", "1");
    assert_eq!(Said::by(&mut command).ok(), "sockets:\n");
}

#[test]
fn the_log_is_written_as_asked_for() {
    let mut bundle = Bundle::new("true");
    bundle.spec["process"]["cwd"] = json!("relative");
    let log = bundle.path("log");
    let log_flag = log.to_str().unwrap().to_owned();
    let output = bundle.say(&["--log", &log_flag, "--log-format", "json", "run", &bundle.id]);
    assert_eq!(output.code, 1);
    let line: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("process.cwd"), "{line}");
    assert!(output.err.contains("process.cwd"));
    let output = bundle.say(&["run", &bundle.id]);
    let text = output.err;
    assert!(
        text.starts_with("time=\"") && text.contains("level=error msg=\"coracle run failed: "),
        "{text}"
    );
}

#[test]
fn what_is_not_there_yet_is_refused() {
    let bundle = Bundle::new("true");
    // containerd looks into the log alone.
    let log = bundle.path("log");
    let flags = [
        "--log",
        log.to_str().unwrap(),
        "--systemd-cgroup",
        "run",
        &bundle.id,
    ];
    assert!(
        bundle
            .say(&flags)
            .refused(1)
            .contains("--systemd-cgroup is not supported yet")
    );
    let logged = std::fs::read_to_string(log).unwrap();
    assert!(
        logged.contains("--systemd-cgroup is not supported yet"),
        "{logged}"
    );
    assert!(
        bundle
            .fails(&["run", "--no-pivot"])
            .contains("--no-pivot is not supported yet")
    );
    bundle.assert_nothing_left();
}

#[test]
fn environment_home_and_user_are_the_containers() {
    let mut bundle = Bundle::new("echo $HOME $ONCE; id -u; id -g; id -G");
    std::fs::write(
        bundle.root("etc/passwd"),
        "root:x:0:0::/root:\nweb:x:33:34::/srv/web:/bin/sh\n",
    )
    .unwrap();
    bundle.spec["process"]["user"] = json!({"uid": 33, "gid": 34, "additionalGids": [50, 60]});
    bundle.spec["process"]["env"] = json!(["PATH=/bin", "ONCE=first", "ONCE=last"]);
    assert_eq!(bundle.run(), "/srv/web last\n33\n34\n34 50 60\n");
}

#[test]
fn only_what_is_preserved_stays_open() {
    let bundle = Bundle::new("ls /proc/self/fd | grep -v '^3$'; cat <&4");
    let file = bundle.path("passed");
    std::fs::write(&file, "through\n").unwrap();
    let script = format!(
        "exec 3</dev/null 4<{} 7</dev/null; exec {} --root {} run --preserve-fds 2 {}",
        file.display(),
        program::path("coracle").display(),
        bundle.path("state").display(),
        bundle.id
    );
    drop(bundle.coracle(&["state"]));
    let mut shell = Command::new("sh");
    let output = Said::by(shell.args(["-c", &script]).current_dir(bundle.path("")));
    // 3 and 4 were passed; ls opens the directory as 5. 7 is gone.
    assert_eq!(output.all(), "0\n1\n2\n4\n5\nthrough\n");
    let error = bundle.say(&["run", "--preserve-fds", "200", &bundle.id]);
    assert!(error.all().contains("--preserve-fds"), "{}", error.all());
}

/// As a runtime inside leaves it that has paused a container of its own.
#[test]
fn a_frozen_cgroup_within_does_not_outlive_its_container() {
    let bundle = Bundle::new("sleep 1000 & exec sleep 1000");
    bundle.create();
    bundle.ok(&["start"]);
    let inner = bundle.cgroup_dir("freezer").join("inner");
    std::fs::create_dir(&inner).unwrap();
    let procs = || std::fs::read_to_string(bundle.cgroup_dir("freezer").join("cgroup.procs")).unwrap();
    wait_until("its child", || procs().lines().count() == 2);
    std::fs::write(inner.join("cgroup.procs"), procs().lines().last().unwrap()).unwrap();
    std::fs::write(inner.join("freezer.state"), "FROZEN").unwrap();
    wait_until("it is frozen", || {
        std::fs::read_to_string(inner.join("freezer.state")).unwrap() == "FROZEN\n"
    });
    bundle.ok(&["delete", "--force"]);
    bundle.assert_nothing_left();
}
