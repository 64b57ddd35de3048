//! A pod's start, an exec, and its end, over CRI, on both sides.

use std::thread;
use std::time::{Duration, Instant};

use coracle_integration::containerd::Containerd;
use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    PodSandboxConfig, RemoveContainerRequest, RemovePodSandboxRequest, StopContainerRequest,
    StopPodSandboxRequest,
};
use coracle_integration::daemon::{Daemon, Settings, bridge_and_portmap};
use coracle_integration::node::Node;
use coracle_integration::{cgroups, pods};
use serde_json::{Value, json};

use crate::Options;
use crate::figures::{Report, Samples, milliseconds};

/// A tight loop hides the kernel's grace periods, so the machine comes to rest after every pod.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);
/// Not counted: page cache, lazily made kernel objects.
const WARM_UP: usize = 3;
const EXECS: usize = 3;

/// One side of the comparison.
pub(crate) struct Side {
    cri: Cri,
    /// Everything of the side is accounted here.
    cgroup: String,
    start: Samples,
    run_sandbox: Samples,
    create: Samples,
    start_container: Samples,
    exec: Samples,
    end: Samples,
    stop_container: Samples,
    processor: Samples,
}

/// Pods on a bridge with a host port.
pub(crate) fn bridged(node: &Node, options: &Options, report: &mut Report) {
    report.say("pods on a bridge with a host port");
    compare(node, options, report, |name, number| {
        let mut config = pods::sandbox(name, &node.folder("logs"));
        config.port_mappings = vec![pods::port(20_000 + i32::try_from(number % 1000).unwrap(), 8080)];
        config
    });
}

/// Pods on the host's network: no CNI on either side.
pub(crate) fn on_the_host_network(node: &Node, options: &Options, report: &mut Report) {
    report.say("pods on the host network");
    compare(node, options, report, |name, _| {
        pods::host_network_sandbox(name, &node.folder("logs"))
    });
}

fn compare(
    node: &Node,
    options: &Options,
    report: &mut Report,
    pod: impl Fn(&str, usize) -> PodSandboxConfig,
) {
    let daemon = coracle(node, &[]);
    let containerd = containerd(node);
    let mut ours = Side::new(daemon.cri(), coracle_cgroup(node));
    let mut peer = Side::new(containerd.cri(), containerd_cgroup(node));
    for number in 0..WARM_UP + options.rounds {
        // Who goes first changes, so that neither always runs after the other's leftovers.
        let order = if number % 2 == 0 {
            [&mut ours, &mut peer]
        } else {
            [&mut peer, &mut ours]
        };
        for side in order {
            side.round(&pod(&format!("pod{number}"), number), number >= WARM_UP);
        }
    }
    let of = ("containerd", "runc");
    report.compare(
        "start (run, create, start)",
        &ours.start,
        (of.0, &peer.start),
        0.25,
    );
    report.compare("end (stop .. remove sandbox)", &ours.end, (of.0, &peer.end), 0.35);
    report.compare("ExecSync", &ours.exec, (of.0, &peer.exec), 0.2);
    report.compare(
        "processor time of a pod",
        &ours.processor,
        (of.0, &peer.processor),
        0.25,
    );
    for (what, ours, peer) in [
        ("RunPodSandbox", &ours.run_sandbox, &peer.run_sandbox),
        ("CreateContainer", &ours.create, &peer.create),
        ("StartContainer", &ours.start_container, &peer.start_container),
        ("StopContainer", &ours.stop_container, &peer.stop_container),
    ] {
        let ratio = milliseconds(ours.median()) / milliseconds(peer.median());
        report.say(format!(
            "    of these {what:<23} coracle {ours}   {} {peer}   {ratio:.3} x",
            of.0
        ));
    }
}

impl Side {
    fn new(cri: Cri, cgroup: String) -> Side {
        let none = Samples::default;
        Side {
            cri,
            cgroup,
            start: none(),
            run_sandbox: none(),
            create: none(),
            start_container: none(),
            exec: none(),
            end: none(),
            stop_container: none(),
            processor: none(),
        }
    }

    /// One pod's life. Processor time is taken after the pause, so that what is done in the background counts.
    fn round(&mut self, config: &PodSandboxConfig, counted: bool) {
        let mut config = config.clone();
        config.linux.get_or_insert_default().cgroup_parent = format!("{}/pods", self.cgroup);
        let mut container = pods::container("server", &["serve", "8080"]);
        let of_pod = config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.clone())
            .unwrap_or_default();
        let of_container = container
            .linux
            .get_or_insert_default()
            .security_context
            .get_or_insert_default();
        of_container.namespace_options = of_pod.namespace_options;
        let processor = cgroups::cpu_time(&self.cgroup);

        let (pod, run_sandbox) = timed(|| self.cri.run(&config));
        let (id, create) = timed(|| self.cri.create(&pod, &config, &container));
        let ((), start_container) = timed(|| self.cri.start(&id));
        for _ in 0..EXECS {
            let (answer, exec) = timed(|| self.cri.exec_in(&id, &["/payload", "true"]));
            assert_eq!(answer.exit_code, 0, "{answer:?}");
            if counted {
                self.exec.add(exec);
            }
        }
        let (stop_container, end) = self.end(&pod, &id);
        thread::sleep(PAUSE);
        if counted {
            self.run_sandbox.add(run_sandbox);
            self.create.add(create);
            self.start_container.add(start_container);
            self.start.add(run_sandbox + create + start_container);
            self.stop_container.add(stop_container);
            self.end.add(end);
            self.processor
                .add(cgroups::cpu_time(&self.cgroup).saturating_sub(processor));
        }
    }

    fn end(&self, pod: &str, container: &str) -> (Duration, Duration) {
        let stop = StopContainerRequest {
            container_id: container.to_owned(),
            timeout: 10,
        };
        let remove = RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        let stop_pod = StopPodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        let remove_pod = RemovePodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        let (_, first) = timed(|| self.cri.stop_container(stop).expect("StopContainer"));
        let ((), rest) = timed(|| {
            self.cri.remove_container(remove).expect("RemoveContainer");
            self.cri.stop_pod_sandbox(stop_pod).expect("StopPodSandbox");
            self.cri.remove_pod_sandbox(remove_pod).expect("RemovePodSandbox");
        });
        (first, first + rest)
    }
}

/// A daemon of ours, in the cgroup that accounts for it.
pub(crate) fn coracle<'node>(node: &'node Node, flags: &[&str]) -> Daemon<'node> {
    let mut settings = Settings::new(node);
    settings.cgroup_root = coracle_cgroup(node);
    settings.own_cgroup = Some(format!("{}/daemon", coracle_cgroup(node)));
    settings.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let daemon = settings.start(node);
    daemon.import_payload();
    daemon
}

/// The peer, in the cgroup that accounts for it.
pub(crate) fn containerd(node: &Node) -> Containerd<'_> {
    let cgroup = format!("{}/daemon", containerd_cgroup(node));
    let containerd = Containerd::start(node, &upstream_network(), &cgroup);
    containerd.import_payload();
    containerd
}

/// The same chain as ours, on a bridge of its own, told to speak nf_tables.
fn upstream_network() -> Value {
    let mut network = bridge_and_portmap("peer", "peer0", 89);
    network["plugins"][0]["ipMasqBackend"] = json!("nftables");
    network["plugins"][1]["backend"] = json!("nftables");
    network
}

fn coracle_cgroup(node: &Node) -> String {
    format!("{}/coracle", node.cgroup())
}

fn containerd_cgroup(node: &Node) -> String {
    format!("{}/containerd", node.cgroup())
}

pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let answer = work();
    (answer, start.elapsed())
}
