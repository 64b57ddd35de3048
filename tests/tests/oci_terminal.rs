//! Terminals: the container's own, handed over or connected with the caller's.

use coracle_tests::bundle::Bundle;
use coracle_tests::program::{self, Said};
use coracle_tests::wait::wait_until;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

/// Accepts one connection and takes the descriptor that comes over it.
fn receive(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().unwrap();
    let mut data = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut data)];
    rustix::net::recvmsg(&stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    File::from(fds.next().unwrap())
}

fn terminal(script: &str) -> Bundle {
    let mut bundle = Bundle::new(script);
    bundle.spec["process"]["terminal"] = json!(true);
    bundle
}

#[test]
fn it_is_sent_to_the_console_socket() {
    let mut bundle = terminal("tty; stty size; stat -c %t:%T /dev/console; read line; echo got $line");
    bundle.spec["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    let socket = bundle.path("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let args = ["create", "--console-socket", socket.to_str().unwrap(), &bundle.id];
    let output = bundle.say(&args);
    assert_eq!(output.code, 0, "{output:?}");
    let mut master = receive(&listener);
    bundle.ok(&["start"]);
    master.write_all(b"hello\n").unwrap();
    let mut text = Vec::new();
    // The end of the other side is an error of a terminal (EIO).
    let _ = master.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
    // What was typed is echoed somewhere in between.
    for part in ["/dev/pts/0\n", "33 77\n", "88:0\n", "got hello\n"] {
        assert!(text.contains(part), "{text}");
    }
    wait_until("its end", || bundle.state()["status"] == "stopped");
}

#[test]
fn the_rules_of_runc_hold() {
    let bundle = terminal("true");
    for command in [&["create"][..], &["run", "--detach"]] {
        let error = bundle.fails(command);
        assert!(
            error.contains("cannot allocate tty if coracle will detach without setting console socket"),
            "{error}"
        );
    }
    let error = bundle.fails(&["run", "--console-socket", "/x"]);
    assert!(
        error.contains("cannot use console socket if coracle will not detach or allocate tty"),
        "{error}"
    );
    let bundle = Bundle::new("true");
    let error = bundle.fails(&["create", "--console-socket", "/x"]);
    assert!(
        error.contains("cannot use console socket if coracle will not detach or allocate tty"),
        "{error}"
    );
}

#[test]
fn a_console_socket_that_nobody_listens_at_fails_the_creation() {
    let bundle = terminal("true");
    let error = bundle.fails(&["create", "--console-socket", "/nowhere/console.sock"]);
    assert!(error.contains("/nowhere/console.sock"), "{error}");
    bundle.assert_nothing_left();
}

#[test]
fn in_the_foreground_it_is_connected_with_the_callers() {
    let bundle = terminal("stty size; tty; read line; echo \"<$line>\"; exit 9");
    drop(bundle.coracle(&["state"]));
    // script(1) is the caller's terminal.
    let run = format!(
        "stty rows 21 cols 43; {} --root {} run --bundle {} {}; echo code=$?; stty -a | grep -o ' icanon'",
        program::path("coracle").display(),
        bundle.path("state").display(),
        bundle.path("").display(),
        bundle.id
    );
    let mut command = std::process::Command::new("script");
    command.args(["-q", "-c", &run, "/dev/null"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let text = Said::from(child.wait_with_output().unwrap())
        .all()
        .replace("\r\n", "\n");
    assert!(
        text.contains("21 43\n") && text.contains("/dev/pts/0\n"),
        "{text}"
    );
    assert!(text.contains("<typed>\ncode=9\n icanon\n"), "{text}");
    bundle.assert_nothing_left();
}

#[test]
fn an_image_with_links_in_dev_does_not_redirect_it() {
    // CVE-2025-52565: the container's names for terminals are links to files of procfs.
    for (name, target) in [
        ("console", "/proc/sysrq-trigger"),
        ("pts/ptmx", "/proc/version"),
        ("pts/0", "/proc/version"),
    ] {
        let mut bundle = terminal("true");
        let dev = bundle.path("dev");
        std::fs::create_dir_all(dev.join("pts")).unwrap();
        symlink(target, dev.join(name)).unwrap();
        let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| {
            mount["destination"] != "/dev" && (mount["destination"] != "/dev/pts" || name == "console")
        });
        mounts.insert(
            1,
            json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]}),
        );
        let socket = bundle.path("console.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let output = bundle.say(&["create", "--console-socket", socket.to_str().unwrap(), &bundle.id]);
        assert_eq!(output.code, 1, "{name}: {}", output.all());
        assert!(Path::new(&dev.join(name)).is_symlink());
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_descriptor_of_the_first_process_is_sent_to_the_pidfd_socket() {
    let bundle = Bundle::new("sleep 1000");
    let socket = bundle.path("pidfd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let args = ["create", "--pidfd-socket", socket.to_str().unwrap(), &bundle.id];
    // The container keeps what it is given open.
    assert!(
        bundle
            .coracle(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let pidfd = receive(&listener);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    assert!(
        info.contains(&format!("Pid:\t{}\n", bundle.state()["pid"])),
        "{info}"
    );
}
