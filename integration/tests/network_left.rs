//! A plugin that cannot give a pod's network back: the pod stays known until it can.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use coracle_integration::cri::v1::{
    ListPodSandboxRequest, PodSandboxState, RunPodSandboxRequest, StopPodSandboxRequest,
};
use coracle_integration::daemon::Settings;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods, programs};

/// A plugin that fails on whatever it is asked for, and says so as CNI wants it.
const BROKEN: &str =
    "#!/bin/sh\necho '{\"cniVersion\": \"1.0.0\", \"code\": 999, \"msg\": \"broken on order\"}'\nexit 1\n";

#[test]
fn a_network_that_cannot_be_given_back_is_not_forgotten() {
    node::run("network-left", |node| {
        let plugins = node.folder("plugins-with-one-broken");
        let coracle_cni = programs::ours("coracle-cni");
        node.does(&[
            coracle_cni.to_str().unwrap(),
            "install",
            plugins.to_str().unwrap(),
        ]);
        let portmap = plugins.join("portmap");
        break_plugin(&portmap);
        let mut settings = Settings::new(node);
        settings.plugins = Some(plugins);
        let daemon = settings.start(node);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();

        let config = pods::sandbox("left", &node.folder("logs"));
        let request = RunPodSandboxRequest {
            config: Some(config),
            ..Default::default()
        };
        let refused = cri.run_pod_sandbox(request).unwrap_err();
        assert!(refused.message().contains("broken on order"), "{refused:?}");
        let listed = || {
            cri.list_pod_sandbox(ListPodSandboxRequest::default())
                .unwrap()
                .items
        };
        let [pod] = listed().try_into().expect("the sandbox is still listed");
        assert_eq!(pod.state(), PodSandboxState::SandboxNotready);

        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod.id.clone(),
        };
        let refused = cri.stop_pod_sandbox(stop).unwrap_err();
        assert!(refused.message().contains("broken on order"), "{refused:?}");

        fs::remove_file(&portmap).unwrap();
        symlink(&coracle_cni, &portmap).unwrap();
        cri.discard(&pod.id);
        assert_eq!(listed(), []);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

/// It made nothing, and whoever waits for it to be installed waits for ever: the name may be misspelt.
#[test]
fn a_plugin_that_is_not_installed_keeps_no_pod() {
    node::run("network-absent", |node| {
        let plugins = node.folder("plugins-with-one-absent");
        let coracle_cni = programs::ours("coracle-cni");
        node.does(&[
            coracle_cni.to_str().unwrap(),
            "install",
            plugins.to_str().unwrap(),
        ]);
        fs::remove_file(plugins.join("portmap")).unwrap();
        let mut settings = Settings::new(node);
        settings.plugins = Some(plugins.clone());
        let daemon = settings.start(node);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let request = RunPodSandboxRequest {
            config: Some(pods::sandbox("absent", &node.folder("logs"))),
            ..Default::default()
        };
        let refused = cri.run_pod_sandbox(request).unwrap_err();
        assert!(
            refused.message().contains("failed to find plugin \"portmap\""),
            "{refused:?}"
        );
        let listed = cri.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
        assert_eq!(listed.items, []);

        // A pod that was made while it was there goes without it, too.
        symlink(&coracle_cni, plugins.join("portmap")).unwrap();
        let pod = cri.run(&pods::sandbox("absent", &node.folder("logs")));
        fs::remove_file(plugins.join("portmap")).unwrap();
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

fn break_plugin(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::write(path, BROKEN).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
