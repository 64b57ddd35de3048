//! What pods and containers use, as the kubelet asks for it.

use std::time::Duration;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerStats, ContainerStatsRequest, LinuxPodSandboxStats, PodSandboxStatsRequest, UInt64Value,
};
use coracle_integration::daemon::Settings;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods, wait};

const MIB: u64 = 1 << 20;

#[test]
fn stats_follow_what_a_pod_uses() {
    node::run("stats", |node| {
        let mut settings = Settings::new(node);
        settings.configuration = "stats_period_s = 1".to_owned();
        let daemon = settings.start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("used", &node.folder("logs"));
        let pod = cri.run(&config);
        let server = cri.launch(&pod, &config, &pods::container("server", &["serve", "8080"]));
        let memory = cri.launch(&pod, &config, &pods::container("memory", &["fill-memory", "32"]));
        let disk = pods::container("disk", &["fill-file", "/filled", "8"]);
        let disk = cri.launch(&pod, &config, &disk);

        wait::until_true(wait::SOON, "the memory counts", || {
            let stats = of_container(&cri, &memory);
            value(stats.memory.unwrap().working_set_bytes) >= 32 * MIB
        });
        wait::until_true(Duration::from_secs(30), "the written file counts", || {
            let layer = of_container(&cri, &disk).writable_layer;
            value(layer.and_then(|layer| layer.used_bytes)) >= 8 * MIB
        });

        let address = format!("http://{}:8080/log?1000", address(&cri, &pod));
        let fetch = || {
            node.command("curl")
                .args(["-sS", "--max-time", "60", &address])
                .output()
        };
        wait::until_true(wait::SOON, "the server listens", || {
            fetch().unwrap().status.success()
        });
        let first = of_pod(&cri, &pod);
        for _ in 0..20 {
            assert!(fetch().unwrap().status.success());
        }
        wait::until_true(wait::SOON, "processor time and traffic grow", || {
            let now = of_pod(&cri, &pod);
            let ((cpu, rx, tx), (cpu_then, rx_then, tx_then)) = (growing(&now), growing(&first));
            cpu > cpu_then && rx > rx_then && tx > tx_then
        });
        assert!(
            value(first.process.unwrap().process_count) >= 3,
            "three containers"
        );
        assert!(value(first.memory.unwrap().working_set_bytes) >= 32 * MIB);

        let listed = cri.list_container_stats(Default::default()).unwrap().stats;
        let mut ids: Vec<String> = listed.iter().map(id).collect();
        let mut all = vec![server, memory, disk];
        ids.sort();
        all.sort();
        assert_eq!(ids, all);
        let listed = cri.list_pod_sandbox_stats(Default::default()).unwrap().stats;
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0].attributes.as_ref().unwrap().id, pod);

        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

fn of_container(cri: &Cri, container: &str) -> ContainerStats {
    let request = ContainerStatsRequest {
        container_id: container.to_owned(),
    };
    let stats = cri.container_stats(request).unwrap().stats.unwrap();
    assert_eq!(id(&stats), container);
    stats
}

fn of_pod(cri: &Cri, pod: &str) -> LinuxPodSandboxStats {
    let request = PodSandboxStatsRequest {
        pod_sandbox_id: pod.to_owned(),
    };
    let stats = cri.pod_sandbox_stats(request).unwrap().stats.unwrap();
    stats.linux.unwrap()
}

/// Processor time in ns, bytes received, bytes sent.
fn growing(pod: &LinuxPodSandboxStats) -> (u64, u64, u64) {
    let network = pod.network.as_ref().unwrap();
    let interface = network.default_interface.as_ref().unwrap();
    assert_eq!(interface.name, "eth0");
    let cpu = pod.cpu.as_ref().unwrap().usage_core_nano_seconds;
    (value(cpu), value(interface.rx_bytes), value(interface.tx_bytes))
}

fn address(cri: &Cri, pod: &str) -> String {
    let request = coracle_integration::cri::v1::PodSandboxStatusRequest {
        pod_sandbox_id: pod.to_owned(),
        verbose: false,
    };
    let status = cri.pod_sandbox_status(request).unwrap().status.unwrap();
    status.network.unwrap().ip
}

fn id(stats: &ContainerStats) -> String {
    stats.attributes.as_ref().unwrap().id.clone()
}

fn value(field: Option<UInt64Value>) -> u64 {
    field.map_or(0, |field| field.value)
}
