//! What the containers of a pod share, and what they must not reach.

use std::fs;

use coracle_integration::cri::v1::{
    ContainerConfig, Int64Value, NamespaceMode, NamespaceOption, PodSandboxConfig,
};
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods, wait};

#[test]
fn a_shared_pid_namespace_hides_its_init() {
    node::run("pod-pids", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let mut config = pods::sandbox("shared", &node.folder("logs"));
        share_pids(&mut config);
        let pod = cri.run(&config);
        let mut server = pods::container("server", &["serve", "8080"]);
        join_pids(&mut server);
        let mut other = pods::container("other", &["sleep", "1000"]);
        join_pids(&mut other);
        let server = cri.launch(&pod, &config, &server);
        let other = cri.launch(&pod, &config, &other);

        let processes = cri.exec_output(&other, &["/payload", "ls", "/proc"]);
        let pids = processes
            .split_whitespace()
            .filter(|name| name.chars().all(|c| c.is_ascii_digit()))
            .count();
        assert!(
            pids >= 4,
            "init, server, other and the command see each other: {processes}"
        );
        // `open` ends with 0 only when nothing could be opened.
        for path in [
            "/proc/1/root",
            "/proc/1/root/etc",
            "/proc/1/exe",
            "/proc/1/fd/0",
            "/proc/1/mem",
            "/proc/1/cwd",
        ] {
            let tried = cri.exec_in(&server, &["/payload", "open", path]);
            assert_eq!(
                tried.exit_code, 0,
                "{path} of the pod's init was opened: {tried:?}"
            );
        }
        // Ending a container ends every process of its cgroup, and nobody else's.
        let _ = cri.exec_in(&server, &["/payload", "true"]);
        cri.stop_container(coracle_integration::cri::v1::StopContainerRequest {
            container_id: server,
            timeout: 1,
        })
        .unwrap();
        wait::until_true(wait::SOON, "the server is gone", || {
            !node
                .processes()
                .iter()
                .any(|process| process.command.contains(&"serve".to_owned()))
        });
        assert!(
            cri.exec_output(&other, &["/payload", "echo", "here"])
                .contains("here")
        );
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn a_pod_has_the_files_and_limits_kubernetes_gives_it() {
    node::run("pod-files", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let mut config = pods::sandbox("files", &node.folder("logs"));
        config.dns_config = Some(coracle_integration::cri::v1::DnsConfig {
            servers: vec!["192.0.2.53".to_owned()],
            searches: vec!["cluster.local".to_owned()],
            options: vec!["ndots:5".to_owned()],
        });
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("c", &["serve", "80"]));
        let read = |path: &str| cri.exec_output(&container, &["/payload", "cat", path]);
        assert_eq!(read("/etc/hostname").trim(), "files");
        let hosts = read("/etc/hosts");
        assert!(
            hosts.contains("127.0.0.1") && hosts.contains("localhost") && hosts.contains("files"),
            "{hosts}"
        );
        let resolv = read("/etc/resolv.conf");
        for line in ["nameserver 192.0.2.53", "search cluster.local", "options ndots:5"] {
            assert!(resolv.lines().any(|found| found == line), "{line}: {resolv}");
        }
        assert_eq!(read("/proc/sys/net/ipv4/ip_unprivileged_port_start").trim(), "0");
        let mounts = cri.exec_output(&container, &["/payload", "mounts"]);
        let shm = mounts
            .lines()
            .find(|line| line.contains(" /dev/shm "))
            .expect("/dev/shm");
        assert!(shm.contains("size=65536k"), "{shm}");
        assert!(read("/proc/net/dev").contains("eth0:"));
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn host_namespaces_are_the_nodes() {
    node::run("host-namespaces", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let mut config = pods::host_network_sandbox("host", &node.folder("logs"));
        set_namespaces(&mut config, all_of_the_node());
        config
            .linux
            .as_mut()
            .unwrap()
            .security_context
            .as_mut()
            .unwrap()
            .privileged = true;
        let pod = cri.run(&config);
        let mut container = pods::container("c", &["serve", "18081"]);
        let security = container
            .linux
            .as_mut()
            .unwrap()
            .security_context
            .as_mut()
            .unwrap();
        security.namespace_options = Some(all_of_the_node());
        security.privileged = true;
        let container = cri.launch(&pod, &config, &container);
        wait::until_true(wait::SOON, "the server answers on the node's own network", || {
            let mut curl = node.command("curl");
            let answer = curl
                .args(["-sS", "--max-time", "60", "http://127.0.0.1:18081/"])
                .output()
                .unwrap();
            String::from_utf8_lossy(&answer.stdout).contains("hello")
        });
        for kind in ["net", "ipc", "pid"] {
            let path = format!("/proc/{}/ns/{kind}", node.pid_of(&["payload", "18081"]));
            assert_eq!(
                fs::read_link(path).unwrap(),
                fs::read_link(format!("/proc/1/ns/{kind}")).unwrap(),
                "{kind}"
            );
        }
        assert!(
            cri.exec_output(&container, &["/payload", "echo", "in"])
                .contains("in")
        );
        cri.discard(&pod);
        before.assert_nothing_left(node);
    });
}

#[test]
fn users_of_the_request_apply() {
    node::run("users", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("users", &node.folder("logs"));
        let pod = cri.run(&config);
        let mut container = pods::container("c", &["sleep", "100"]);
        let security = container
            .linux
            .as_mut()
            .unwrap()
            .security_context
            .as_mut()
            .unwrap();
        security.run_as_user = Some(Int64Value { value: 1234 });
        security.run_as_group = Some(Int64Value { value: 4321 });
        security.supplemental_groups = vec![77];
        security.no_new_privs = true;
        let container = cri.launch(&pod, &config, &container);
        let identity = cri.exec_output(&container, &["/payload", "id"]);
        for part in ["1234", "4321", "77"] {
            assert!(identity.contains(part), "{identity}");
        }
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

fn share_pids(config: &mut PodSandboxConfig) {
    set_namespaces(
        config,
        NamespaceOption {
            pid: NamespaceMode::Pod.into(),
            ..Default::default()
        },
    );
}

fn join_pids(container: &mut ContainerConfig) {
    let security = container
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap();
    security.namespace_options = Some(NamespaceOption {
        pid: NamespaceMode::Pod.into(),
        ..Default::default()
    });
}

fn set_namespaces(config: &mut PodSandboxConfig, namespaces: NamespaceOption) {
    config
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap()
        .namespace_options = Some(namespaces);
}

fn all_of_the_node() -> NamespaceOption {
    let node = NamespaceMode::Node.into();
    NamespaceOption {
        network: node,
        pid: node,
        ipc: node,
        ..Default::default()
    }
}
