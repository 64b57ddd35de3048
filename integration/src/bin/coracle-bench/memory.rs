//! What the shims of twenty pods take.

use std::fs;

use coracle_integration::cri::Cri;
use coracle_integration::node::Node;
use coracle_integration::pods;

use crate::Options;
use crate::figures::Report;
use crate::pods::{containerd, coracle};

const PODS: usize = 20;

/// PSS of one shim of twenty, the pods' containers running.
pub(crate) fn of_shims(node: &Node, _: &Options, report: &mut Report) {
    report.say(format!("memory of a pod's shim (PSS, one of {PODS})"));
    let daemon = coracle(node, &[]);
    let ours = median_of_twenty(node, &daemon.cri(), "coracle", "coracle-shim");
    let containerd = containerd(node);
    let peer = median_of_twenty(node, &containerd.cri(), "containerd", "containerd-shim");
    report.bound("coracle-shim", ours, "MB", 1.0);
    report.say(format!("  containerd-shim-runc-v2            {peer:.3} MB"));
}

fn median_of_twenty(node: &Node, cri: &Cri, side: &str, program: &str) -> f64 {
    let all: Vec<String> = (0..PODS)
        .map(|number| {
            let mut config = pods::sandbox(&format!("pod{number}"), &node.folder("logs"));
            config.linux.get_or_insert_default().cgroup_parent = format!("{}/{side}/pods", node.cgroup());
            let pod = cri.run(&config);
            let container = cri.launch(&pod, &config, &pods::container("only", &["sleep", "1000"]));
            assert_eq!(cri.exec_in(&container, &["/payload", "true"]).exit_code, 0);
            pod
        })
        .collect();
    let mut sizes: Vec<u64> = node
        .processes()
        .iter()
        .filter(|process| process.command[0].contains(program))
        .filter_map(|process| proportional_size(process.pid))
        .collect();
    assert_eq!(sizes.len(), PODS, "one shim a pod");
    sizes.sort_unstable();
    all.iter().for_each(|pod| cri.discard(pod));
    let kilobytes = u32::try_from(sizes[PODS / 2]).unwrap();
    f64::from(kilobytes) / 1024.0
}

/// In kB: proc_pid_smaps(5).
fn proportional_size(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
