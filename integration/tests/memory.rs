//! What a pod costs while it does nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; the lint only knows functions with #[test]"
)]

use std::fs;

use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods};

/// The promise: PSS of a pod's shim, one of twenty.
const LARGEST_KB: u64 = 1024;

#[test]
fn a_shim_of_twenty_takes_less_than_a_megabyte() {
    node::run("shim-memory", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_files(node, &[daemon.state()]);
        let cri = daemon.cri();
        let ids: Vec<String> = (0..20)
            .map(|number| {
                let config = pods::sandbox(&format!("pod{number}"), &node.folder("logs"));
                let pod = cri.run(&config);
                let container = cri.launch(&pod, &config, &pods::container("only", &["sleep", "1000"]));
                assert!(
                    cri.exec_output(&container, &["/payload", "echo", "used"])
                        .contains("used")
                );
                pod
            })
            .collect();
        let mut sizes: Vec<u64> = node
            .processes()
            .iter()
            .filter(|process| process.command[0].contains("coracle-shim"))
            .map(|process| proportional_size(process.pid))
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes.len(), 20);
        println!("PSS of 20 shims in kB: {sizes:?}");
        let median = sizes[sizes.len() / 2];
        assert!(median <= LARGEST_KB, "{median} kB: {sizes:?}");
        ids.iter().for_each(|pod| cri.discard(pod));
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

/// proc_pid_smaps(5): pages that others map too count for their share.
fn proportional_size(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
