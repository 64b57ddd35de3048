//! What a pod costs while it does nothing.

use std::fs;

use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods, wait};

/// The promise: PSS of a pod's shim, one of twenty.
const LARGEST_KB: u64 = 1024;

#[test]
fn a_shim_of_twenty_takes_less_than_a_megabyte() {
    node::run("shim-memory", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
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
        // What a shim has just started looks like a shim until its execve(2), and the dead have no memory.
        let sizes = wait::until(wait::SOON, || {
            let sizes: Vec<u64> = node
                .processes()
                .iter()
                .filter(|process| process.command[0].contains("coracle-shim"))
                .filter_map(|process| proportional_size(process.pid))
                .collect();
            if sizes.len() == 20 { Ok(sizes) } else { Err(sizes) }
        });
        let mut sizes = sizes.unwrap();
        sizes.sort_unstable();
        println!("PSS of 20 shims in kB: {sizes:?}");
        let median = sizes[sizes.len() / 2];
        assert!(median <= LARGEST_KB, "{median} kB: {sizes:?}");
        ids.iter().for_each(|pod| cri.discard(pod));
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

/// proc_pid_smaps(5): pages that others map too count for their share.
fn proportional_size(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
