//! Sysctls of the pod's interfaces, which are there only after its network has been attached.

use coracle_integration::cri::v1::RunPodSandboxRequest;
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods};

#[test]
fn sysctls_of_an_interface_are_written_when_it_is_there() {
    node::run("interface-sysctls", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let with = |name: &str, sysctls: &[(&str, &str)]| {
            let mut config = pods::sandbox(name, &node.folder("logs"));
            let sysctls = sysctls
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            config.linux.get_or_insert_default().sysctls = sysctls.collect();
            config
        };
        let config = with(
            "tuned",
            &[
                ("net.ipv4.conf.eth0.arp_ignore", "1"),
                ("net.ipv4.neigh.eth0.gc_stale_time", "77"),
                ("net.ipv4.conf.all.arp_announce", "2"),
            ],
        );
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("reader", &["sleep", "1000"]));
        for (file, value) in [
            ("conf/eth0/arp_ignore", "1"),
            ("neigh/eth0/gc_stale_time", "77"),
            ("conf/all/arp_announce", "2"),
        ] {
            let path = format!("/proc/sys/net/ipv4/{file}");
            assert_eq!(
                cri.exec_output(&container, &["/payload", "cat", &path]).trim(),
                value,
                "{file}"
            );
        }
        cri.discard(&pod);

        // One of an interface that no plugin makes: the pod is undone, its address given back.
        let request = RunPodSandboxRequest {
            config: Some(with("missing", &[("net.ipv4.conf.eth7.arp_ignore", "1")])),
            ..RunPodSandboxRequest::default()
        };
        let refused = cri.run_pod_sandbox(request).unwrap_err();
        assert!(
            refused.message().contains("net/ipv4/conf/eth7/arp_ignore"),
            "{refused:?}"
        );
        assert!(cri.list_pod_sandbox(Default::default()).unwrap().items.is_empty());
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}
