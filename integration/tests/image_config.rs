//! What an image's configuration says, seen in a running pod: ENTRYPOINT, CMD, ENV, USER by name, WORKDIR, STOPSIGNAL.

use std::fs;
use std::path::Path;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerConfig, ContainerState, ContainerStatus, ContainerStatusRequest, ImageSpec, NamespaceMode,
    PodSandboxConfig, StopContainerRequest,
};
use coracle_integration::daemon::Daemon;
use coracle_integration::image::{Image, Layer};
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods, programs, wait};

const IMAGE: &str = "localhost/coracle/configured:1";
/// 128 + SIGUSR1, which the payload does not handle.
const BY_STOPSIGNAL: i32 = 138;

#[test]
fn an_image_says_how_its_containers_run() {
    node::run("image-config", |node| {
        let daemon = Daemon::start(node);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let mut archive = Vec::new();
        image().write(&mut archive).unwrap();
        cri.import_bytes(&archive).expect("import the image");
        let logs = node.folder("logs");
        let mut config = pods::sandbox("configured", &logs);
        share_pids(&mut config);
        let pod = cri.run(&config);

        let plain = cri.launch(&pod, &config, &container("plain", &[], &[]));
        let log = logs.join("configured/plain.log");
        wait::until_true(wait::SOON, "ENTRYPOINT and CMD have run", || {
            said(&log).contains("from CMD")
        });
        assert!(said(&log).contains("from ENTRYPOINT"), "{}", said(&log));
        assert!(
            cri.exec_output(&plain, &["/payload", "env"])
                .contains("COLOUR=blue")
        );
        let identity = cri.exec_output(&plain, &["/payload", "id"]);
        assert!(identity.contains("Uid: 1234 1234"), "{identity}");
        assert!(identity.contains("Gid: 2345 2345"), "{identity}");
        assert!(
            identity.contains("3000"),
            "the group that lists the user: {identity}"
        );
        // Of all folders only WORKDIR has this one beside it.
        let beside = cri.exec_output(&plain, &["/payload", "cat", "../beside/file"]);
        assert_eq!(beside.trim(), "found");

        cri.stop_container(StopContainerRequest {
            container_id: plain.clone(),
            timeout: 60,
        })
        .unwrap();
        assert_eq!(status(&cri, &plain).exit_code, BY_STOPSIGNAL);

        requests_come_first(&cri, &pod, &config, &logs);
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

/// Arguments replace CMD alone; a command replaces both.
fn requests_come_first(cri: &Cri, pod: &str, config: &PodSandboxConfig, logs: &Path) {
    let cases = [
        (container("args", &[], &["echo", "mine"]), true),
        (container("command", &["/payload", "echo", "mine"], &[]), false),
    ];
    for (container, entrypoint) in cases {
        let log = logs.join("configured").join(&container.log_path);
        let id = cri.launch(pod, config, &container);
        wait::until_true(wait::SOON, "the container has ended", || {
            status(cri, &id).state() == ContainerState::ContainerExited
        });
        let said = said(&log);
        assert!(said.contains("mine") && !said.contains("from CMD"), "{said}");
        assert_eq!(said.contains("from ENTRYPOINT"), entrypoint, "{said}");
    }
}

fn image() -> Image {
    let payload = fs::read(programs::ours("coracle-payload")).expect("read the payload");
    let mut image = Image::of_payload(IMAGE, payload);
    image.layers.push(
        Layer::default()
            .file("etc/passwd", 0o644, "web:x:1234:2345::/:/payload\n")
            .file("etc/group", 0o644, "webs:x:2345:\nextra:x:3000:web\n")
            .directory("srv", 0o755)
            .directory("srv/work", 0o755)
            .directory("srv/beside", 0o755)
            .file("srv/beside/file", 0o644, "found\n"),
    );
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    image.entrypoint = words("/payload echo from ENTRYPOINT --");
    image.cmd = words("echo from CMD -- sleep 1000");
    image.env.push("COLOUR=blue".to_owned());
    "web".clone_into(&mut image.user);
    "/srv/work".clone_into(&mut image.working_dir);
    "SIGUSR1".clone_into(&mut image.stop_signal);
    image
}

fn container(name: &str, command: &[&str], arguments: &[&str]) -> ContainerConfig {
    let mut container = pods::container(name, arguments);
    container.image = Some(ImageSpec {
        image: IMAGE.to_owned(),
        ..Default::default()
    });
    container.command = command.iter().map(|word| (*word).to_owned()).collect();
    let linux = container.linux.get_or_insert_default();
    let context = linux.security_context.get_or_insert_default();
    context.namespace_options.get_or_insert_default().pid = NamespaceMode::Pod.into();
    container
}

/// The kernel gives PID 1 of a namespace no signal it does not handle: these containers are not PID 1.
fn share_pids(config: &mut PodSandboxConfig) {
    let linux = config.linux.get_or_insert_default();
    let context = linux.security_context.get_or_insert_default();
    context.namespace_options.get_or_insert_default().pid = NamespaceMode::Pod.into();
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

fn status(cri: &Cri, container: &str) -> ContainerStatus {
    let request = ContainerStatusRequest {
        container_id: container.to_owned(),
        verbose: false,
    };
    cri.container_status(request).unwrap().status.unwrap()
}
