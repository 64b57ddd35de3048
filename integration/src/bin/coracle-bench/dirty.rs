//! StopContainer while somebody else keeps much of the same filesystem unwritten.

use std::thread;
use std::time::Duration;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::StopContainerRequest;
use coracle_integration::node::Node;
use coracle_integration::pods;

use crate::Options;
use crate::figures::{Report, Samples};
use crate::pods::{PAUSE, coracle, timed};

/// Rewritten before the kernel's 30 s are over, 200 MB stay dirty.
const WRITER: &str =
    "while :; do dd if=/dev/zero of=\"$0\" bs=1M count=200 conv=notrunc 2>/dev/null; sleep 2; done";

/// An idle series, then one beside the writer; at most twice as long.
pub(crate) fn stop_beside_a_writer(node: &Node, options: &Options, report: &mut Report) {
    report.say("StopContainer while another process keeps 200 MB of the filesystem dirty");
    let daemon = coracle(node, &[]);
    let cri = daemon.cri();
    let idle = series(node, &cri, options, "idle");
    let mut writer = node
        .command("sh")
        .args(["-c", WRITER])
        .arg(node.scratch().join("dirty"))
        .spawn()
        .expect("start sh");
    thread::sleep(Duration::from_secs(2));
    let busy = series(node, &cri, options, "busy");
    let _ = writer.kill();
    let _ = writer.wait();
    report.compare("StopContainer beside a writer", &busy, ("idle", &idle), 2.0);
}

fn series(node: &Node, cri: &Cri, options: &Options, name: &str) -> Samples {
    let mut samples = Samples::default();
    for number in 0..options.rounds.div_ceil(2) {
        let config = pods::host_network_sandbox(&format!("{name}{number}"), &node.folder("logs"));
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("only", &["sleep", "1000"]));
        thread::sleep(PAUSE);
        let stop = StopContainerRequest {
            container_id: container,
            timeout: 10,
        };
        let (_, took) = timed(|| cri.stop_container(stop).expect("StopContainer"));
        samples.add(took);
        cri.discard(&pod);
    }
    samples
}
