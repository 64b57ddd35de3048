//! Folders of 200 characters and an image of 60 layers, through the whole daemon: neither sun_path (108 bytes) nor the page
//! of mount options is a limit.

use std::fs;
use std::path::PathBuf;

use coracle_integration::daemon::{PAYLOAD, Settings};
use coracle_integration::leak::Snapshot;
use coracle_integration::node::{self, Node};
use coracle_integration::{pods, programs};

/// Characters of `--root` and `--state`.
const LENGTH: usize = 200;

#[test]
fn a_pod_of_60_layers_runs_below_long_folders() {
    node::run("long-paths", |node| {
        let mut settings = Settings::new(node);
        settings.root = long_folder(node, "root");
        settings.state = long_folder(node, "state");
        let daemon = settings.start(node);
        let cri = daemon.cri();
        let archive = node.scratch().join("layers.tar");
        node.does(&[
            programs::ours("coracle-image").to_str().unwrap(),
            "--payload",
            programs::ours("coracle-payload").to_str().unwrap(),
            "--name",
            PAYLOAD,
            "--layers",
            "60",
            "--output",
            archive.to_str().unwrap(),
        ]);
        assert_eq!(cri.import(&archive).unwrap().len(), 1);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let config = pods::sandbox("long", &node.folder("logs"));
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("c", &["serve", "8080"]));
        assert_eq!(
            cri.exec_output(&container, &["/payload", "echo", "here"]),
            "here\n"
        );
        daemon.kill9();
        daemon.restart();
        let cri = daemon.cri();
        assert_eq!(
            cri.exec_output(&container, &["/payload", "echo", "still"]),
            "still\n"
        );
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
        let layers = fs::read_dir(daemon.root().join("containers")).unwrap();
        assert_eq!(layers.count(), 0, "writable layers are left");
    });
}

fn long_folder(node: &Node, name: &str) -> PathBuf {
    let scratch = node.scratch().as_os_str().len();
    let path = node.folder(&format!(
        "{name}-{}",
        "x".repeat(LENGTH - scratch - name.len() - 2)
    ));
    assert_eq!(path.as_os_str().len(), LENGTH);
    path
}
