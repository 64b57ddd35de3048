//! A shim that does not answer: kept while it may come back, ended when its pod's end is wanted.

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerState, ContainerStatus, ContainerStatusRequest, ExecSyncRequest, PodSandboxState,
    PodSandboxStatusRequest, RemovePodSandboxRequest, ReopenContainerLogRequest, StopContainerRequest,
    StopPodSandboxRequest,
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
        let before = Snapshot::take_with_daemon(node, &daemon);
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
        let before = Snapshot::take_with_daemon(node, &daemon);
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

#[test]
fn a_stopped_shim_holds_up_no_other_pod_and_goes_on_where_it_was() {
    node::run("silent-shim-alone", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let [stuck, free] = ["stuck", "free"].map(|name| pods::sandbox(name, &node.folder("logs")));
        let [stuck_pod, free_pod] = [&stuck, &free].map(|config| cri.run(config));
        let serve = |name| pods::container(name, &["serve", "8080"]);
        let server = cri.launch(&stuck_pod, &stuck, &serve("server"));
        let victim = cri.launch(&stuck_pod, &stuck, &pods::container("victim", &["sleep", "1000"]));
        let other = cri.launch(&free_pod, &free, &serve("server"));

        let shim = shim_of(node, &stuck_pod);
        node.signal(shim, "STOP");
        let refusals = [
            in_background(node, &daemon, &server, reopen),
            in_background(node, &daemon, &victim, stop),
        ];
        assert_eq!(cri.exec_output(&other, &["/payload", "echo", "free"]), "free\n");
        let more = cri.launch(&free_pod, &free, &pods::container("more", &["sleep", "1000"]));
        stop(&cri, &more).unwrap();
        assert_eq!(pod_state(&cri, &stuck_pod), PodSandboxState::SandboxReady);
        assert_eq!(status(&cri, &server).state(), ContainerState::ContainerRunning);
        for refusal in refusals {
            let refusal = refusal.join().unwrap().unwrap_err();
            assert_eq!(refusal.code(), Code::Unavailable, "{refusal:?}");
            assert!(refusal.message().contains("shim"), "{refusal:?}");
        }

        node.signal(shim, "CONT");
        assert_eq!(
            cri.exec_output(&server, &["/payload", "echo", "again"]),
            "again\n"
        );
        reopen(&cri, &server).unwrap();
        stop(&cri, &victim).unwrap();
        assert_eq!(status(&cri, &victim).state(), ContainerState::ContainerExited);
        let late = cri.launch(&stuck_pod, &stuck, &pods::container("late", &["serve", "8081"]));
        assert_eq!(cri.exec_output(&late, &["/payload", "echo", "late"]), "late\n");
        for pod in [&stuck_pod, &free_pod] {
            cri.discard(pod);
        }
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

type Refusal = std::thread::JoinHandle<Result<(), tonic::Status>>;

fn in_background(
    node: &Node,
    daemon: &Daemon<'_>,
    container: &str,
    request: fn(&Cri, &str) -> Result<(), tonic::Status>,
) -> Refusal {
    let (socket, container) = (daemon.socket(), container.to_owned());
    node.spawn_thread(move || request(&Cri::connect(&socket), &container))
}

fn reopen(cri: &Cri, container: &str) -> Result<(), tonic::Status> {
    let request = ReopenContainerLogRequest {
        container_id: container.to_owned(),
    };
    cri.reopen_container_log(request).map(drop)
}

fn stop(cri: &Cri, container: &str) -> Result<(), tonic::Status> {
    let request = StopContainerRequest {
        container_id: container.to_owned(),
        timeout: 1,
    };
    cri.stop_container(request).map(drop)
}

/// One of the containers has ended by itself before: its cgroup is still there when the shim dies.
#[test]
fn a_killed_shim_leaves_no_cgroup_of_an_ended_container() {
    node::run("shim-killed-late", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
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
