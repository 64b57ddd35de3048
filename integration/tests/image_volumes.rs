//! VOLUME of an image, seen in a running pod: the image's content and owner, writable under a read-only root, gone with
//! the container.

use std::fs;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerConfig, ContainerState, ContainerStatusRequest, ImageSpec, Int64Value, Mount,
    RemoveContainerRequest,
};
use coracle_integration::daemon::Daemon;
use coracle_integration::image::{Image, Layer};
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods, wait};

const IMAGE: &str = "localhost/coracle/volumes:1";
const USER: i64 = 1000;

#[test]
fn an_images_volumes_hold_its_content_and_can_be_written_to() {
    node::run("image-volumes", |node| {
        let daemon = Daemon::start(node);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let mut archive = Vec::new();
        image().write(&mut archive).unwrap();
        cri.import_bytes(&archive).expect("import the image");
        let logs = node.folder("logs");
        let config = pods::sandbox("volumes", &logs);
        let pod = cri.run(&config);

        let script = "cd /data && cat kept inner/deep && stat -c '%u:%g %a %n' . kept inner /newvol /etc/resolv.conf \
            && readlink link && echo a > w && cat w; touch /elsewhere; ls /taken; sleep 1000";
        let mut container = container("writer", script);
        let other = node.folder("other");
        fs::write(other.join("of-the-request"), "").unwrap();
        container.mounts.push(Mount {
            container_path: "/taken".to_owned(),
            host_path: other.display().to_string(),
            ..Mount::default()
        });
        let id = cri.launch(&pod, &config, &container);
        let log = logs.join("volumes/writer.log");
        let said = || fs::read_to_string(&log).unwrap_or_default();
        wait::until_true(wait::SOON, "the container has said all", || {
            said().contains("of-the-request")
        });
        for line in [
            "of the image",
            "deep",
            "1000:1000 750 .",
            "1000:1000 640 kept",
            "0:0 755 inner",
            "0:0 755 /newvol",
            "kept\n",
            " F a\n",
            "touch: /elsewhere: Read-only file system",
        ] {
            assert!(said().contains(line), "no {line:?} in {}", said());
        }
        assert!(is_running(&cri, &id));

        // What one container wrote is not the image's, nor another container's.
        let second = cri.launch(
            &pod,
            &config,
            &self::container("second", "ls /data; echo that is all; sleep 1000"),
        );
        let log = logs.join("volumes/second.log");
        let said = || fs::read_to_string(&log).unwrap_or_default();
        wait::until_true(wait::SOON, "the second has listed", || {
            said().contains("that is all")
        });
        assert!(
            said().contains("kept") && !said().contains(" F w\n"),
            "{}",
            said()
        );

        for container_id in [id, second] {
            cri.remove_container(RemoveContainerRequest { container_id })
                .unwrap();
        }
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

fn image() -> Image {
    let busybox = fs::read("/bin/busybox").expect("read busybox");
    let user = 1000;
    let mut layer = Layer::default()
        .directory("etc", 0o755)
        .directory("bin", 0o755)
        .file("bin/busybox", 0o755, busybox)
        .directory("data", 0o750)
        .owned_by(user, user)
        .file("data/kept", 0o640, "of the image\n")
        .owned_by(user, user)
        .symlink("data/link", "kept")
        .directory("data/inner", 0o755)
        .file("data/inner/deep", 0o644, "deep\n")
        .directory("taken", 0o755)
        .file("taken/of-the-image", 0o644, "");
    for name in ["sh", "cat", "stat", "readlink", "touch", "ls", "sleep"] {
        layer = layer.symlink(&format!("bin/{name}"), "busybox");
    }
    Image {
        name: IMAGE.to_owned(),
        layers: vec![layer],
        env: vec!["PATH=/bin".to_owned()],
        volumes: ["/data", "newvol/", "/taken"].map(str::to_owned).to_vec(),
        ..Image::default()
    }
}

fn container(name: &str, script: &str) -> ContainerConfig {
    let mut container = pods::container(name, &[]);
    container.image = Some(ImageSpec {
        image: IMAGE.to_owned(),
        ..ImageSpec::default()
    });
    container.command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let linux = container.linux.get_or_insert_default();
    let context = linux.security_context.get_or_insert_default();
    context.run_as_user = Some(Int64Value { value: USER });
    context.run_as_group = Some(Int64Value { value: USER });
    context.readonly_rootfs = true;
    container
}

fn is_running(cri: &Cri, container: &str) -> bool {
    let request = ContainerStatusRequest {
        container_id: container.to_owned(),
        verbose: false,
    };
    let status = cri.container_status(request).unwrap().status.unwrap();
    status.state() == ContainerState::ContainerRunning
}
