//! The daemon can die at any moment: pods go on, and the next daemon knows them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerState, ContainerStatus, ContainerStatusRequest, CreateContainerRequest, PodSandboxState,
    PodSandboxStatusRequest, RemoveContainerRequest, RemovePodSandboxRequest, StopPodSandboxRequest,
};
use coracle_integration::daemon::{Daemon, Settings};
use coracle_integration::leak::{Kind, Snapshot};
use coracle_integration::node::{self, Node};
use coracle_integration::{pods, wait};
use tonic::Code;

/// 10 MB in lines of 100 bytes.
const LINES: usize = 100_000;

#[test]
fn a_pod_serves_and_logs_while_the_daemon_is_dead() {
    node::run("daemon-dead", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let mut config = pods::sandbox("serving", &node.folder("logs"));
        config.port_mappings = vec![pods::port(18080, 8080)];
        let pod = cri.run(&config);
        let server = cri.launch(&pod, &config, &pods::container("server", &["serve", "8080"]));
        let count = LINES.to_string();
        let go = node.folder("go");
        let mut writer = pods::container(
            "writer",
            &[
                "wait-for",
                "/go/now",
                "--",
                "write-lines",
                &count,
                "100",
                "--",
                "sleep",
                "1000",
            ],
        );
        writer.mounts = vec![mount(&go, "/go")];
        let writer = cri.launch(&pod, &config, &writer);
        answers(node);

        daemon.kill9();
        answers(node);
        fs::write(go.join("now"), "").unwrap();
        let log = node.folder("logs").join("serving/writer.log");
        wait::until_true(
            Duration::from_secs(60),
            "the log is whole while the daemon is dead",
            || fs::read(&log).is_ok_and(|text| text.iter().filter(|byte| **byte == b'\n').count() >= LINES),
        );
        every_line_is_there(&fs::read_to_string(&log).unwrap());
        answers(node);

        daemon.restart();
        let cri = daemon.cri();
        let listed: Vec<_> = cri.list_containers(Default::default()).unwrap().containers;
        assert_eq!(listed.len(), 2, "{listed:?}");
        assert!(
            listed
                .iter()
                .all(|container| container.state() == ContainerState::ContainerRunning),
            "{listed:?}"
        );
        assert!(
            cri.exec_output(&server, &["/payload", "echo", "again"])
                .contains("again")
        );
        answers(node);
        let stop = cri.stop_container(coracle_integration::cri::v1::StopContainerRequest {
            container_id: writer.clone(),
            timeout: 2,
        });
        stop.unwrap();
        assert_eq!(status(&cri, &writer).state(), ContainerState::ContainerExited);
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn an_exit_while_the_daemon_is_dead_is_reported() {
    node::run("exit-unseen", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("short", &node.folder("logs"));
        let pod = cri.run(&config);
        let go = node.folder("go");
        let mut short = pods::container("short", &["wait-for", "/go/now", "--", "exit", "9"]);
        short.mounts = vec![mount(&go, "/go")];
        let short = cri.launch(&pod, &config, &short);
        daemon.kill9();
        fs::write(go.join("now"), "").unwrap();
        wait::until_true(wait::SOON, "the container ends", || {
            !node
                .processes()
                .iter()
                .any(|process| process.command.iter().any(|word| word == "/go/now"))
        });
        daemon.restart();
        let cri = daemon.cri();
        wait::until_true(wait::SOON, "the exit is known", || {
            status(&cri, &short).state() == ContainerState::ContainerExited
        });
        assert_eq!(status(&cri, &short).exit_code, 9);
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn a_killed_shim_is_reported_and_leaves_nothing() {
    node::run("shim-killed", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("orphan", &node.folder("logs"));
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("server", &["serve", "8080"]));
        // Its cgroup stays until it is removed, below the pod's.
        let ended = cri.launch(&pod, &config, &pods::container("ended", &["true"]));
        wait::until_true(wait::SOON, "the short container has ended", || {
            status(&cri, &ended).state() == ContainerState::ContainerExited
        });
        node.signal(node.pid_of(&["coracle-shim", &pod]), "KILL");
        shimless_pod_is_reported(&cri, &pod, &container);
        wait::until_true(wait::SOON, "the container's processes are ended", || {
            !node
                .processes()
                .iter()
                .any(|process| process.command[0].contains("payload"))
        });
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn shim_and_daemon_killed_together_leave_no_mount() {
    node::run("both-killed", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("orphan", &node.folder("logs"));
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("server", &["serve", "8080"]));
        daemon.kill9();
        node.signal(node.pid_of(&["coracle-shim", &pod]), "KILL");
        daemon.restart();
        let cri = daemon.cri();
        shimless_pod_is_reported(&cri, &pod, &container);
        wait::until_true(wait::SOON, "no mount is left", || {
            Snapshot::take(node).count(Kind::Mount) == before.count(Kind::Mount)
        });
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn a_pod_whose_end_has_begun_is_not_ready_whatever_happens_then() {
    node::run("stop-cut-off", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        daemon.kill9();
        daemon.restart_with(&["--fail-point", "stop_pod_sandbox.containers:before"]);
        let cri = daemon.cri();
        let config = pods::sandbox("ending", &node.folder("logs"));
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("server", &["serve", "8080"]));
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        };
        cri.stop_pod_sandbox(stop).unwrap_err();
        daemon.wait_for_end(wait::SOON);

        daemon.restart();
        let cri = daemon.cri();
        assert_eq!(sandbox_state(&cri, &pod), PodSandboxState::SandboxNotready);
        assert_eq!(status(&cri, &container).state(), ContainerState::ContainerRunning);
        let create = CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(pods::container("late", &["true"])),
            sandbox_config: Some(config),
        };
        let refused = cri.create_container(create).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn mountinfo_grows_by_one_line_a_pod() {
    node::run("one-mount", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        // The first pod may make what all pods share, as the mount that /run/netns is.
        let first = pods::sandbox("first", &node.folder("logs"));
        let mut running = vec![cri.run(&first)];
        let count = || fs::read_to_string("/proc/1/mountinfo").unwrap().lines().count();
        let lines = count();
        for number in 1..=3 {
            let config = pods::sandbox(&format!("pod{number}"), &node.folder("logs"));
            let pod = cri.run(&config);
            for name in ["a", "b"] {
                let _ = cri.launch(&pod, &config, &pods::container(name, &["sleep", "100"]));
            }
            assert_eq!(
                count(),
                lines + number,
                "{}",
                fs::read_to_string("/proc/1/mountinfo").unwrap()
            );
            running.push(pod);
        }
        running.iter().for_each(|pod| cri.discard(pod));
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn after_a_reboot_pods_are_not_ready_and_containers_exited() {
    node::run("reboot", |node| {
        let boot = node.scratch().join("boot-id");
        fs::write(&boot, "11111111-1111-1111-1111-111111111111\n").unwrap();
        let mut settings = Settings::new(node);
        settings.configuration = format!("boot_id_file = \"{}\"", boot.display());
        let daemon = settings.start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("old", &node.folder("logs"));
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("server", &["serve", "8080"]));
        let not_started = cri.create(&pod, &config, &pods::container("created", &["true"]));

        daemon.kill9();
        power_off(node, daemon.state());
        fs::write(&boot, "22222222-2222-2222-2222-222222222222\n").unwrap();
        daemon.restart();

        let cri = daemon.cri();
        assert_eq!(sandbox_state(&cri, &pod), PodSandboxState::SandboxNotready);
        for id in [&container, &not_started] {
            let status = status(&cri, id);
            assert_eq!(
                (status.state(), status.exit_code),
                (ContainerState::ContainerExited, 255),
                "{status:?}"
            );
        }
        wait::until_true(wait::SOON, "the address is free again", || leases().is_empty());
        assert_ne!(
            fs::read_dir(daemon.root()).unwrap().count(),
            0,
            "layers and records are kept"
        );
        for id in [&container, &not_started] {
            cri.remove_container(RemoveContainerRequest {
                container_id: id.clone(),
            })
            .unwrap();
        }
        cri.stop_pod_sandbox(StopPodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        })
        .unwrap();
        cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod })
            .unwrap();

        let again = cri.run(&config);
        cri.discard(&again);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn a_second_daemon_on_one_root_or_state_is_refused() {
    node::run("second-daemon", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::host_network_sandbox("first", &node.folder("logs"));
        let pod = cri.run(&config);
        let socket = node.scratch().join("other.sock");
        let (root, state) = (node.folder("other-root"), node.folder("other-state"));
        second_is_refused(node, [daemon.root(), &state], &socket, "--root");
        second_is_refused(node, [&root, daemon.state()], &socket, "--state");
        assert!(daemon.runs());
        assert_eq!(sandbox_state(&cri, &pod), PodSandboxState::SandboxReady);
        cri.discard(&pod);
        before.assert_nothing_left(node);

        let precious = node.scratch().join("precious");
        fs::write(&precious, "a file").unwrap();
        second_is_refused(node, [&root, &state], &precious, "listen");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "a file");
    });
}

/// Starts another daemon on these folders (`--root`, `--state`); it has to say what is wrong, and end.
fn second_is_refused(node: &Node, [root, state]: [&Path; 2], socket: &Path, named: &str) {
    let mut second = node.command(coracle_integration::programs::ours("coracled"));
    second.arg("--root").arg(root).arg("--state").arg(state);
    second.args(["--listen", &format!("unix://{}", socket.display())]);
    let output = second.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains(named), "the error names {named}: {said}");
}

/// What a power cut does to a pod: its processes, mounts and state folder are gone; so is its network.
fn power_off(node: &Node, state: &Path) {
    for process in node.processes() {
        let own = process.command[0].contains("coracle-shim") || process.command[0].contains("payload");
        if own && process.state != 'Z' {
            // It may be gone already: a container ends with the init of its PID namespace.
            node.does(&["sh", "-c", &format!("kill -KILL {} || true", process.pid)]);
        }
    }
    wait::until_true(wait::SOON, "the shims and what they started are gone", || {
        !node.processes().iter().any(|process| {
            process.command[0].contains("coracle-shim") || process.command[0].contains("payload")
        })
    });
    for entry in fs::read_dir("/run/netns").unwrap().flatten() {
        node.does(&["umount", entry.path().to_str().unwrap()]);
        fs::remove_file(entry.path()).unwrap();
    }
    fs::remove_dir_all(state).unwrap();
    fs::create_dir(state).unwrap();
    coracle_integration::cgroups::remove(node.cgroup()).unwrap();
}

/// CRI-visible state of a pod whose shim was killed: 137 is SIGKILL's exit code.
fn shimless_pod_is_reported(cri: &Cri, pod: &str, container: &str) {
    wait::until_true(wait::SOON, "the container is reported as ended", || {
        status(cri, container).state() == ContainerState::ContainerExited
    });
    assert_eq!(status(cri, container).exit_code, 137);
    wait::until_true(wait::SOON, "the sandbox is reported as not ready", || {
        sandbox_state(cri, pod) == PodSandboxState::SandboxNotready
    });
}

fn status(cri: &Cri, container: &str) -> ContainerStatus {
    let request = ContainerStatusRequest {
        container_id: container.to_owned(),
        verbose: false,
    };
    cri.container_status(request).unwrap().status.unwrap()
}

fn sandbox_state(cri: &Cri, pod: &str) -> PodSandboxState {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: pod.to_owned(),
        verbose: false,
    };
    cri.pod_sandbox_status(request).unwrap().status.unwrap().state()
}

fn answers(node: &Node) {
    wait::until_true(wait::SOON, "the pod answers on its host port", || {
        let mut curl = node.command("curl");
        let answer = curl
            .args(["-sS", "--max-time", "60", "http://10.88.0.1:18080/"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&answer.stdout).contains("hello")
    });
}

/// Lines of the CRI log format: `TIME stdout F TEXT`, none lost, none twice, in order.
fn every_line_is_there(log: &str) {
    let mut seen = None;
    for line in log.lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        assert_eq!(fields[1..3], ["stdout", "F"], "{line}");
        let number: String = fields[3]
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        let number: usize = number.parse().unwrap_or_else(|_| panic!("no number in {line}"));
        assert!(
            seen.map_or(number <= 1, |seen| number == seen + 1),
            "line {number} after {seen:?}"
        );
        seen = Some(number);
    }
    assert!(
        seen.is_some_and(|seen| seen == LINES || seen + 1 == LINES),
        "the last line is {seen:?}"
    );
}

fn leases() -> Vec<String> {
    fs::read_dir("/var/lib/cni/networks/pods")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("10.") || name.starts_with("fd00"))
        .collect()
}

fn mount(host: &Path, container: &str) -> coracle_integration::cri::v1::Mount {
    coracle_integration::cri::v1::Mount {
        host_path: host.display().to_string(),
        container_path: container.to_owned(),
        ..Default::default()
    }
}
