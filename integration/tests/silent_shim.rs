//! A shim that does not answer: kept while it may come back, ended when its pod's end is wanted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; the lint only knows functions with #[test]"
)]

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerState, ContainerStatus, ContainerStatusRequest, ExecSyncRequest, PodSandboxState,
    PodSandboxStatusRequest, RemovePodSandboxRequest, StopPodSandboxRequest,
};
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::node::{self, Node};
use coracle_integration::{pods, wait};
use tonic::Code;

#[test]
fn a_shim_that_is_silent_at_the_start_is_kept_and_found_when_it_answers() {
    node::run("silent-shim-kept", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_files(node, &[daemon.state()]);
        let cri = daemon.cri();
        let config = pods::sandbox("slow", &node.folder("logs"));
        let pod = cri.run(&config);
        let server = cri.launch(&pod, &config, &pods::container("server", &["serve", "8080"]));
        let go = node.folder("go");
        let mut short = pods::container("short", &["wait-for", "/go/now", "--", "exit", "9"]);
        short.mounts = vec![coracle_integration::cri::v1::Mount {
            host_path: go.display().to_string(),
            container_path: "/go".to_owned(),
            ..Default::default()
        }];
        let short = cri.launch(&pod, &config, &short);

        daemon.kill9();
        let shim = shim_of(node, &pod);
        node.signal(shim, "STOP");
        daemon.restart();
        let cri = daemon.cri();
        assert_eq!(pod_state(&cri, &pod), PodSandboxState::SandboxReady);
        assert_eq!(status(&cri, &server).state(), ContainerState::ContainerRunning);
        std::fs::write(go.join("now"), "").unwrap();

        node.signal(shim, "CONT");
        wait::until_true(wait::SOON, "the end that nobody saw is known", || {
            status(&cri, &short).state() == ContainerState::ContainerExited
        });
        assert_eq!(status(&cri, &short).exit_code, 9);
        assert_eq!(status(&cri, &server).state(), ContainerState::ContainerRunning);
        assert!(
            cri.exec_output(&server, &["/payload", "echo", "again"])
                .contains("again")
        );
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn a_pod_whose_shim_stays_silent_can_be_ended() {
    node::run("silent-shim-ended", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_files(node, &[daemon.state()]);
        let cri = daemon.cri();
        let config = pods::sandbox("stuck", &node.folder("logs"));
        let pod = cri.run(&config);
        let server = cri.launch(&pod, &config, &pods::container("server", &["serve", "8080"]));
        let created = cri.create(&pod, &config, &pods::container("created", &["true"]));
        node.signal(shim_of(node, &pod), "STOP");

        let exec = ExecSyncRequest {
            container_id: server.clone(),
            cmd: vec!["/payload".to_owned(), "true".to_owned()],
            timeout: 1,
        };
        let refused = cri.exec_sync(exec).unwrap_err();
        assert!(
            refused.code() == Code::DeadlineExceeded && refused.message().contains("1 s"),
            "{refused:?}"
        );

        daemon.kill9();
        daemon.restart();
        let cri = daemon.cri();
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        };
        cri.stop_pod_sandbox(stop).unwrap();
        assert_eq!(pod_state(&cri, &pod), PodSandboxState::SandboxNotready);
        for container in [&server, &created] {
            let status = status(&cri, container);
            assert_eq!(
                (status.state(), status.exit_code),
                (ContainerState::ContainerExited, 137),
                "{status:?}"
            );
        }
        cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod })
            .unwrap();
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

/// One of the containers has ended by itself before: its cgroup is still there when the shim dies.
#[test]
fn a_killed_shim_leaves_no_cgroup_of_an_ended_container() {
    node::run("shim-killed-late", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_files(node, &[daemon.state()]);
        let cri = daemon.cri();
        let config = pods::sandbox("late", &node.folder("logs"));
        let pod = cri.run(&config);
        let ended = cri.launch(&pod, &config, &pods::container("ended", &["exit", "3"]));
        let created = cri.create(&pod, &config, &pods::container("created", &["true"]));
        wait::until_true(wait::SOON, "the container ends", || {
            status(&cri, &ended).state() == ContainerState::ContainerExited
        });
        daemon.kill9();
        node.signal(shim_of(node, &pod), "KILL");
        daemon.restart();
        let cri = daemon.cri();
        wait::until_true(wait::SOON, "the sandbox is not ready", || {
            pod_state(&cri, &pod) == PodSandboxState::SandboxNotready
        });
        assert_eq!(status(&cri, &ended).exit_code, 3);
        assert_eq!(status(&cri, &created).exit_code, 137);
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

/// The shim itself: a container that was not started yet has its command line, and is its child.
fn shim_of(node: &Node, pod: &str) -> u32 {
    let all = node.processes();
    let mut shims = all
        .iter()
        .filter(|process| process.command.windows(2).any(|pair| pair == ["--id", pod]));
    let pids: Vec<u32> = shims.clone().map(|process| process.pid).collect();
    shims
        .find(|process| !pids.contains(&process.parent))
        .unwrap_or_else(|| panic!("no shim of {pod} among {all:#?}"))
        .pid
}

fn status(cri: &Cri, container: &str) -> ContainerStatus {
    let request = ContainerStatusRequest {
        container_id: container.to_owned(),
        verbose: false,
    };
    cri.container_status(request)
        .expect("ContainerStatus")
        .status
        .expect("a status")
}

fn pod_state(cri: &Cri, pod: &str) -> PodSandboxState {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: pod.to_owned(),
        verbose: false,
    };
    cri.pod_sandbox_status(request)
        .expect("PodSandboxStatus")
        .status
        .expect("a status")
        .state()
}
