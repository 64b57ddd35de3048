//! Requests that cannot be right: each gets the code and a message that names the field, and leaves nothing behind.

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerConfig, ContainerStatusRequest, CreateContainerRequest, ExecRequest, ExecSyncRequest, ImageSpec,
    Int64Value, LinuxContainerSecurityContext, Mount, NamespaceMode, PodSandboxConfig,
    PodSandboxStatusRequest, PullImageRequest, RemoveContainerRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
};
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods};
use tonic::{Code, Status};

/// A change that makes a request wrong, the code it must get, and what the message must name.
type Wrong<T> = (fn(&mut T), Code, &'static str);

const WRONG_PODS: &[Wrong<PodSandboxConfig>] = &[
    (|pod| pod.metadata = None, Code::InvalidArgument, "metadata"),
    (
        |pod| pod.metadata.as_mut().unwrap().name.clear(),
        Code::InvalidArgument,
        "name",
    ),
    (
        |pod| pod.hostname = "a/b".to_owned(),
        Code::InvalidArgument,
        "hostname",
    ),
    (
        |pod| pod.hostname = "x".repeat(65),
        Code::InvalidArgument,
        "hostname",
    ),
    (
        |pod| pod.log_directory = "relative".to_owned(),
        Code::InvalidArgument,
        "log_directory",
    ),
    (
        |pod| pod.port_mappings = vec![pods::port(70_000, 80)],
        Code::InvalidArgument,
        "port_mappings",
    ),
    (
        |pod| pod.port_mappings = vec![pods::port(80, -1)],
        Code::InvalidArgument,
        "port_mappings",
    ),
    (
        |pod| pod.linux.as_mut().unwrap().cgroup_parent = "../up".to_owned(),
        Code::InvalidArgument,
        "cgroup_parent",
    ),
    (|pod| sysctl(pod, "kernel/../x"), Code::InvalidArgument, "sysctls"),
];

const WRONG_CONTAINERS: &[Wrong<ContainerConfig>] = &[
    (
        |container| container.metadata = None,
        Code::InvalidArgument,
        "metadata",
    ),
    (
        |container| container.metadata.as_mut().unwrap().name.clear(),
        Code::InvalidArgument,
        "name",
    ),
    (|container| container.image = None, Code::InvalidArgument, "image"),
    (
        |container| container.image = Some(image("localhost/absent:1")),
        Code::NotFound,
        "localhost/absent:1",
    ),
    (
        |container| container.working_dir = "relative".to_owned(),
        Code::InvalidArgument,
        "working_dir",
    ),
    (
        |container| container.log_path = "../up.log".to_owned(),
        Code::InvalidArgument,
        "log_path",
    ),
    (
        |container| container.mounts = vec![mount("", "/x")],
        Code::InvalidArgument,
        "host_path",
    ),
    (
        |container| capabilities(container, "NOT_A_CAPABILITY"),
        Code::InvalidArgument,
        "NOT_A_CAPABILITY",
    ),
    (
        |container| security(container).run_as_username = "nobody-we-know".to_owned(),
        Code::InvalidArgument,
        "run_as_username",
    ),
    (
        |container| security(container).run_as_group = Some(Int64Value { value: 7 }),
        Code::InvalidArgument,
        "run_as_group: \"7\"",
    ),
    (
        |container| {
            let linux = container.linux.as_mut().unwrap();
            linux.resources.get_or_insert_default().memory_limit_in_bytes = -5;
        },
        Code::InvalidArgument,
        "memory_limit_in_bytes",
    ),
];

#[test]
fn wrong_requests_are_refused_by_name_and_leave_nothing() {
    node::run("bad-requests", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let at_first = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let logs = node.folder("logs");
        let good = pods::sandbox("good", &logs);
        let pod = cri.run(&good);
        let before = Snapshot::take_with_daemon(node, &daemon);

        for (break_it, code, named) in WRONG_PODS {
            let mut config = pods::sandbox("bad", &logs);
            break_it(&mut config);
            let request = RunPodSandboxRequest {
                config: Some(config),
                ..Default::default()
            };
            refused(cri.run_pod_sandbox(request), *code, named);
        }
        for (break_it, code, named) in WRONG_CONTAINERS {
            let mut container = pods::container("bad", &["true"]);
            break_it(&mut container);
            let request = CreateContainerRequest {
                pod_sandbox_id: pod.clone(),
                config: Some(container),
                sandbox_config: Some(good.clone()),
            };
            refused(cri.create_container(request), *code, named);
        }
        wrong_forms(&cri, &good);
        unknown_ids(&cri);
        not_there_yet(&cri);
        before.assert_nothing_left(node);
        assert_eq!(cri.list_pod_sandbox(Default::default()).unwrap().items.len(), 1);
        assert!(
            cri.list_containers(Default::default())
                .unwrap()
                .containers
                .is_empty()
        );
        cri.discard(&pod);
        daemon.uninstall_network();
        at_first.assert_nothing_left(node);
    });
}

#[test]
fn a_container_that_cannot_be_made_says_why_and_is_not_left() {
    node::run("cannot-start", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let at_first = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("bad", &node.folder("logs"));
        let pod = cri.run(&config);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let mut container = pods::container("absent", &[]);
        // A file of the image. (A program that is missing is its start's to tell: start_error.rs.)
        container.working_dir = "/etc/passwd".to_owned();
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let refusal = cri.create_container(request).unwrap_err();
        assert!(refusal.message().contains("/etc/passwd"), "{refusal:?}");
        assert!(
            cri.list_containers(Default::default())
                .unwrap()
                .containers
                .is_empty()
        );
        before.assert_nothing_left(node);
        cri.discard(&pod);
        daemon.uninstall_network();
        at_first.assert_nothing_left(node);
    });
}

fn wrong_forms(cri: &Cri, good: &PodSandboxConfig) {
    refused(
        cri.run_pod_sandbox(RunPodSandboxRequest::default()),
        Code::InvalidArgument,
        "config",
    );
    let handler = RunPodSandboxRequest {
        config: Some(pods::sandbox("bad", "/run".as_ref())),
        runtime_handler: "vm".into(),
    };
    refused(cri.run_pod_sandbox(handler), Code::InvalidArgument, "vm");
    let create = CreateContainerRequest {
        pod_sandbox_id: "nowhere".to_owned(),
        config: Some(pods::container("c", &[])),
        sandbox_config: Some(good.clone()),
    };
    refused(cri.create_container(create), Code::NotFound, "nowhere");
    let pull = PullImageRequest {
        image: Some(image("Not A Reference")),
        ..Default::default()
    };
    refused(cri.pull_image(pull), Code::InvalidArgument, "Not A Reference");
}

fn unknown_ids(cri: &Cri) {
    let id = || "feed".to_owned();
    refused(
        cri.start_container(StartContainerRequest { container_id: id() }),
        Code::NotFound,
        "feed",
    );
    refused(
        cri.container_status(ContainerStatusRequest {
            container_id: id(),
            verbose: false,
        }),
        Code::NotFound,
        "feed",
    );
    refused(
        cri.pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: id(),
            verbose: false,
        }),
        Code::NotFound,
        "feed",
    );
    let exec = ExecSyncRequest {
        container_id: id(),
        cmd: vec!["/x".to_owned()],
        timeout: 1,
    };
    refused(cri.exec_sync(exec), Code::NotFound, "feed");
    // What is to be gone and is gone is a success.
    cri.stop_container(StopContainerRequest {
        container_id: id(),
        timeout: 0,
    })
    .unwrap();
    cri.remove_container(RemoveContainerRequest { container_id: id() })
        .unwrap();
    cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id() })
        .unwrap();
    cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id() })
        .unwrap();
}

/// RPCs that are not there yet say so.
fn not_there_yet(cri: &Cri) {
    let exec = ExecRequest {
        container_id: "feed".to_owned(),
        cmd: vec!["/x".to_owned()],
        stdout: true,
        ..Default::default()
    };
    for (name, refusal) in [
        (
            "UpdateContainerResources",
            cri.update_container_resources(Default::default()).map(drop),
        ),
        ("Exec", cri.exec(exec).map(drop)),
        ("Attach", cri.attach(Default::default()).map(drop)),
        ("PortForward", cri.port_forward(Default::default()).map(drop)),
        (
            "CheckpointContainer",
            cri.checkpoint_container(Default::default()).map(drop),
        ),
    ] {
        refused(refusal, Code::Unimplemented, name);
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, named: &str) {
    let status = answer.expect_err(named);
    assert_eq!(status.code(), code, "{named}: {status:?}");
    assert!(
        status.message().contains(named),
        "the message does not name {named}: {status:?}"
    );
}

fn sysctl(pod: &mut PodSandboxConfig, name: &str) {
    pod.linux
        .as_mut()
        .unwrap()
        .sysctls
        .insert(name.to_owned(), "1".to_owned());
}

fn capabilities(container: &mut ContainerConfig, name: &str) {
    let security = security(container);
    security.capabilities.get_or_insert_default().add_capabilities = vec![name.to_owned()];
    security.namespace_options = Some(pods::namespaces(NamespaceMode::Pod));
}

fn security(container: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    let linux = container.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap()
}

fn image(name: &str) -> ImageSpec {
    ImageSpec {
        image: name.to_owned(),
        ..Default::default()
    }
}

fn mount(host: &str, container: &str) -> Mount {
    Mount {
        host_path: host.to_owned(),
        container_path: container.to_owned(),
        ..Default::default()
    }
}
