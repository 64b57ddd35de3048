//! NOTIFY_SOCKET: the service in a container is ready, and the host's service manager hears of it.

use coracle_tests::bundle::Bundle;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Sends what sd_notify(3) would; a container of busybox has nothing that does.
const READY: &str = "sleep 0.2; [ -S $NOTIFY_SOCKET ] && echo there: $NOTIFY_SOCKET; exec sleep 1000";

fn manager(bundle: &Bundle) -> UnixDatagram {
    let socket = UnixDatagram::bind(bundle.path("manager")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket
}

fn heard(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = manager.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn say_ready(bundle: &Bundle) {
    let socket = bundle.path("state").join(&bundle.id).join("notify/notify.sock");
    coracle_tests::wait::wait_until("the container's socket", || socket.exists());
    let client = UnixDatagram::unbound().unwrap();
    // Through /proc: the path is longer than a socket's name may be on some machines.
    let fd = std::fs::File::open(socket.parent().unwrap()).unwrap();
    let short = format!(
        "/proc/self/fd/{}/notify.sock",
        std::os::fd::AsRawFd::as_raw_fd(&fd)
    );
    client.send_to(b"STATUS=starting\n", Path::new(&short)).unwrap();
    client
        .send_to(b"READY=1\nSTATUS=up\n", Path::new(&short))
        .unwrap();
}

#[test]
fn a_detached_run_returns_when_its_container_is_ready_and_names_its_process() {
    let bundle = Bundle::new(READY);
    let manager = manager(&bundle);
    let out = std::fs::File::create(bundle.path("out")).unwrap();
    let mut run = bundle.coracle(&["run", "--detach", &bundle.id]);
    run.env("NOTIFY_SOCKET", bundle.path("manager"))
        .stdout(out.try_clone().unwrap())
        .stderr(out);
    let mut run = run.spawn().unwrap();
    say_ready(&bundle);
    assert_eq!(heard(&manager), "READY=1\n");
    let pid = bundle.state()["pid"].to_string();
    assert_eq!(heard(&manager), format!("MAINPID={pid}\n"));
    assert_eq!(heard(&manager), "BARRIER=1");
    assert!(run.wait().unwrap().success());
    coracle_tests::wait::wait_until("its word", || {
        bundle.output() == "there: /run/notify/notify.sock\n"
    });
}

#[test]
fn a_run_in_the_foreground_is_the_main_process_itself() {
    let bundle = Bundle::new("sleep 1000");
    let manager = manager(&bundle);
    let mut run = bundle.coracle(&["run", &bundle.id]);
    run.env("NOTIFY_SOCKET", bundle.path("manager"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut run = run.spawn().unwrap();
    say_ready(&bundle);
    assert_eq!(heard(&manager), "READY=1\n");
    assert_eq!(heard(&manager), format!("MAINPID={}\n", run.id()));
    let _ = bundle.say(&["kill", &bundle.id, "KILL"]);
    run.wait().unwrap();
}

#[test]
fn a_start_waits_for_ready_or_the_end() {
    let bundle = Bundle::new("true");
    let manager = manager(&bundle);
    let out = std::fs::File::create(bundle.path("out")).unwrap();
    let with = |args: &[&str]| {
        let mut command = bundle.coracle(args);
        command.env("NOTIFY_SOCKET", bundle.path("manager"));
        command
            .stdout(out.try_clone().unwrap())
            .stderr(out.try_clone().unwrap());
        command.status().unwrap()
    };
    assert!(with(&["create", &bundle.id]).success());
    // It ends without a word: so does the start.
    assert!(with(&["start", &bundle.id]).success());
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 64]).is_err());
}
