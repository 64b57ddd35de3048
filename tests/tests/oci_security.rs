//! Attacks on the runtime itself: its program file, its descriptors, its working directory.

use coracle_tests::bundle::Bundle;
use coracle_tests::busybox::{executable, install};
use coracle_tests::program;
use coracle_tests::wait::wait_until;
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

#[test]
fn the_program_file_cannot_be_written_through_a_process_of_the_container() {
    // CVE-2019-5736. Until its start the container's first process runs the runtime's own image.
    let bundle = Bundle::new("true");
    // A copy, so that no other test keeps it busy: then it is the mount that says no, not a running program.
    let program = bundle.path("coracle");
    install(&program::path("coracle"), &program);
    drop(bundle.coracle(&["state"]));
    let coracle = |args: &[&str]| {
        let mut command = Command::new(&program);
        command
            .arg("--root")
            .arg(bundle.path("state"))
            .args(args)
            .arg(&bundle.id)
            .current_dir(bundle.path(""));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    coracle(&["create", "--pid-file", "pid"]);
    let pid = std::fs::read_to_string(bundle.path("pid")).unwrap();
    // Nobody holds a descriptor of the copied mount; else it could be made writable again.
    for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        // It closes what its creation needed only after it has said that it is ready.
        let Ok(target) = std::fs::read_link(fd.unwrap().path()) else {
            continue;
        };
        assert!(
            !target.ends_with("coracle") && target != bundle.path(""),
            "{}",
            target.display()
        );
    }
    let mut attacker = Command::new("python3")
        .args(["-c", ATTACK, &pid])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(attacker.stdout.take().unwrap()).lines();
    // mount_setattr(2) is call 442.
    assert_eq!(said.next().unwrap().unwrap(), "-1 Invalid argument");
    coracle(&["start"]);
    wait_until("its end", || bundle.state()["status"] == "stopped");
    drop(attacker.stdin.take());
    assert_eq!(said.next().unwrap().unwrap(), "Read-only file system");
    attacker.wait().unwrap();
}

/// Keeps hold of a process's program, tries to make its mount writable, and opens it for writing when it no longer runs.
const ATTACK: &str = "
import ctypes, os, sys
c = ctypes.CDLL(None, use_errno=True)
fd = os.open(f'/proc/{sys.argv[1]}/exe', os.O_PATH)
attr = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
print(c.syscall(442, fd, b'', 0x1000, attr, 32), os.strerror(ctypes.get_errno()), flush=True)
sys.stdin.read()
try: os.open(f'/proc/self/fd/{fd}', os.O_WRONLY); print('written')
except OSError as e: print(e.strerror)
";

#[test]
fn a_payload_that_is_the_runtime_itself_cannot_write_its_file() {
    let program = program::path("coracle");
    let before = std::fs::read(&program).unwrap();
    for payload in ["script", "link"] {
        let mut bundle = Bundle::new("");
        match payload {
            "script" => executable(&bundle.root("evil"), b"#!/proc/self/exe\n"),
            _ => symlink("/proc/self/exe", bundle.root("evil")).unwrap(),
        }
        bundle.spec["process"]["args"] = json!(["/evil", "--version"]);
        // It may even run, as a program that can do nothing: its image is read only there too.
        let output = bundle.call(&["run"]);
        assert!(output.code >= 0, "{}", output.all());
        bundle.assert_nothing_left();
    }
    assert!(
        std::fs::read(&program).unwrap() == before,
        "the program was changed"
    );
}

#[test]
fn no_descriptor_of_the_host_is_reachable() {
    let script = "fd=0; while test $fd -lt 64; do test -L /proc/$$/fd/$fd && echo $fd; fd=$((fd+1)); done";
    assert_eq!(Bundle::new(script).run(), "0\n1\n2\n");
}

#[test]
fn a_working_directory_cannot_be_one_of_the_hosts() {
    // CVE-2024-21626.
    let mut bundle = Bundle::new("cat /proc/self/mountinfo >/dev/null; ls ..");
    symlink("/proc/self/fd", bundle.root("fds")).unwrap();
    for fd in 3..24 {
        for directory in [
            format!("/proc/self/fd/{fd}"),
            format!("/fds/{fd}"),
            format!("/proc/self/fd/{fd}/.."),
        ] {
            bundle.spec["process"]["cwd"] = json!(directory);
            let output = bundle.call(&["run"]);
            // The one directory that is open at that time is the container's own root.
            let inside = output.code == 0 && output.all() == "bin\ndev\netc\nfds\nproc\nsys\ntmp\n";
            let refused = output.code == 1 && output.all().contains("process.cwd");
            assert!(inside || refused, "{directory}: {}", output.all());
        }
    }
    bundle.assert_nothing_left();
}

#[test]
fn the_first_process_cannot_be_looked_into_before_its_payload_runs() {
    // CVE-2016-9962: files in /proc of a process that is not dumpable belong to the host's root.
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.user_namespace();
    let pid = bundle.create();
    let owner = || std::fs::metadata(format!("/proc/{pid}/fd")).unwrap().uid();
    assert_eq!(owner(), 0);
    bundle.ok(&["start"]);
    // The execve makes it dumpable a moment after it has closed what it had to close.
    wait_until("the payload", || owner() == 100_000);
}

#[test]
fn it_has_a_session_keyring_of_its_own() {
    let bundle = Bundle::new("cat /proc/keys");
    let ring = format!("_ses.{}", bundle.id);
    assert!(bundle.run().contains(&ring));
    let bundle = Bundle::new("cat /proc/keys");
    let ring = format!("_ses.{}", bundle.id);
    assert!(!bundle.ok(&["run", "--no-new-keyring"]).contains(&ring));
}

#[test]
fn files_of_the_image_that_never_end_do_not_hold_it_up() {
    for kind in ["fifo", "zero"] {
        let bundle = Bundle::new("echo $HOME");
        let passwd = bundle.root("etc/passwd");
        match kind {
            "fifo" => assert!(Command::new("mkfifo").arg(&passwd).status().unwrap().success()),
            _ => symlink("/dev/zero", &passwd).unwrap(),
        }
        assert_eq!(bundle.run(), "/\n");
    }
}

#[test]
fn long_strings_are_passed_whole() {
    let mut bundle = Bundle::new("echo ${#LONG} ${#1}");
    bundle.spec["process"]["env"] = json!(["PATH=/bin", format!("LONG={}", "x".repeat(70_000))]);
    let args = bundle.spec["process"]["args"].as_array_mut().unwrap();
    args.extend([json!("sh"), json!("y".repeat(100_000))]);
    assert_eq!(bundle.run(), "70000 100000\n");
}

#[test]
fn a_state_directory_that_is_a_link_is_not_followed() {
    let bundle = Bundle::new("true");
    let elsewhere = bundle.path("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::create_dir_all(bundle.path("state")).unwrap();
    std::fs::File::create(elsewhere.join("canary"))
        .unwrap()
        .write_all(b"x")
        .unwrap();
    symlink(&elsewhere, bundle.path("state").join(&bundle.id)).unwrap();
    assert!(bundle.fails(&["run"]).contains("already exists"));
    bundle.ok(&["delete", "-f"]);
    assert!(elsewhere.join("canary").exists());
}
