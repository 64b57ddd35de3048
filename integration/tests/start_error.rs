//! A program that cannot be executed: the container is made, its start fails with the reason, and it has ended with 128 and
//! StartError, so that a pod that is never restarted fails and a Job comes to its end.

use std::fs;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerConfig, ContainerState, ContainerStatus, ContainerStatusRequest, ImageSpec,
    StartContainerRequest,
};
use coracle_integration::daemon::Daemon;
use coracle_integration::image::{Image, Layer};
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods, programs};

const IMAGE: &str = "localhost/coracle/inexecutable:1";

#[test]
fn what_cannot_be_executed_has_ended_with_a_start_error() {
    node::run("start-error", |node| {
        let daemon = Daemon::start(node);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let mut archive = Vec::new();
        image().write(&mut archive).unwrap();
        cri.import_bytes(&archive).expect("import the image");
        let config = pods::sandbox("inexecutable", &node.folder("logs"));
        let pod = cri.run(&config);

        let mut ended = Vec::new();
        for (command, why) in [
            ("/nowhere", "no such file or directory"),
            ("nowhere", "executable file not found in $PATH"),
            ("/directory", "permission denied"),
            ("/plain", "permission denied"),
            ("/script", "Exec format error"),
        ] {
            let id = cri.create(&pod, &config, &container(command));
            assert_eq!(
                status(&cri, &id).state(),
                ContainerState::ContainerCreated,
                "{command}"
            );
            let request = StartContainerRequest {
                container_id: id.clone(),
            };
            let refused = cri.start_container(request).unwrap_err();
            assert!(refused.message().contains(why), "{command}: {refused:?}");
            is_start_error(&status(&cri, &id), why);
            ended.push((id, why));
        }
        // It is a container like others: a daemon that comes later knows of it.
        let mut waiting = container("/nowhere");
        waiting.metadata.get_or_insert_default().attempt = 1;
        let waiting = cri.create(&pod, &config, &waiting);
        daemon.kill9();
        daemon.restart();
        let cri = daemon.cri();
        for (id, why) in &ended {
            is_start_error(&status(&cri, id), why);
        }
        assert_eq!(status(&cri, &waiting).state(), ContainerState::ContainerCreated);
        let request = StartContainerRequest {
            container_id: waiting.clone(),
        };
        cri.start_container(request).unwrap_err();
        is_start_error(&status(&cri, &waiting), "no such file");

        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

fn is_start_error(status: &ContainerStatus, why: &str) {
    assert_eq!(status.state(), ContainerState::ContainerExited, "{status:?}");
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (128, "StartError"),
        "{status:?}"
    );
    assert!(status.message.contains(why), "{status:?}");
    assert_eq!(status.started_at, 0, "{status:?}");
    assert!(status.finished_at > 0, "{status:?}");
}

fn image() -> Image {
    let payload = fs::read(programs::ours("coracle-payload")).expect("read the payload");
    let mut image = Image::of_payload(IMAGE, payload);
    image.layers.push(
        Layer::default()
            .directory("directory", 0o755)
            .file("plain", 0o644, "no program\n")
            .file("script", 0o755, "echo no interpreter is named\n"),
    );
    image
}

fn container(command: &str) -> ContainerConfig {
    let mut container = pods::container(&command.replace('/', "of-root-"), &[]);
    container.image = Some(ImageSpec {
        image: IMAGE.to_owned(),
        ..ImageSpec::default()
    });
    container.command = vec![command.to_owned()];
    container
}

fn status(cri: &Cri, container: &str) -> ContainerStatus {
    let request = ContainerStatusRequest {
        container_id: container.to_owned(),
        verbose: false,
    };
    cri.container_status(request).unwrap().status.unwrap()
}
