//! `coracle run` of a program that does nothing, beside crun, on one bundle.

use std::fs;
use std::path::Path;
use std::thread;

use coracle_integration::node::Node;
use coracle_integration::programs;
use serde_json::{Value, json};

use crate::Options;
use crate::figures::{Report, Samples, milliseconds};
use crate::pods::{PAUSE, timed};

/// Debian's crun refuses a hybrid cgroup tree, so both run where the unified hierarchy is not mounted; ours runs once more
/// as the machine is.
pub(crate) fn run_true(node: &Node, options: &Options, report: &mut Report) {
    report.say("run of a program that does nothing, on a bundle, 0.1 s between runs");
    let coracle = programs::ours("coracle").display().to_string();
    let bundle = bundle(node, &coracle);
    let mut hybrid = Samples::default();
    for number in 0..options.bundle_rounds / 2 {
        run(node, &coracle, &bundle, &format!("hybrid{number}"), &mut hybrid);
    }
    if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        node.does(&["umount", "/sys/fs/cgroup/unified"]);
    }
    let (mut ours, mut crun) = (Samples::default(), Samples::default());
    for number in 0..options.bundle_rounds {
        let id = format!("run{number}");
        if number % 2 == 0 {
            run(node, &coracle, &bundle, &id, &mut ours);
            run(node, "crun", &bundle, &id, &mut crun);
        } else {
            run(node, "crun", &bundle, &id, &mut crun);
            run(node, &coracle, &bundle, &id, &mut ours);
        }
    }
    report.compare("coracle run", &ours, ("crun", &crun), 0.5);
    report.compare("coracle run, unified mounted", &hybrid, ("crun", &crun), 0.5);
    let (fast, slow) = (milliseconds(ours.quantile(10)), milliseconds(crun.quantile(10)));
    report.say(format!("    p10: coracle {fast:.2} ms, crun {slow:.2} ms"));
}

fn run(node: &Node, runtime: &str, bundle: &str, id: &str, samples: &mut Samples) {
    let root = node.scratch().join("runtime-root").display().to_string();
    let mut command = node.command(runtime);
    command.args(["--root", &root, "run", "--bundle", bundle, id]);
    let (output, took) = timed(|| programs::output_of(&mut command));
    assert!(output.status.success(), "{}", programs::said(&command, &output));
    samples.add(took);
    thread::sleep(PAUSE);
}

/// What `coracle spec` writes, with another program, a cgroup of the test's own, and a version that crun 1.8 knows.
fn bundle(node: &Node, coracle: &str) -> String {
    let folder = node.folder("bundle");
    fs::create_dir_all(folder.join("rootfs")).expect("make the root filesystem");
    fs::copy(programs::ours("coracle-payload"), folder.join("rootfs/payload")).expect("copy the payload");
    let mut spec = node.command(coracle);
    let _ = programs::stdout_of(spec.args(["spec", "--bundle"]).arg(&folder));
    let path = folder.join("config.json");
    let mut config: Value =
        serde_json::from_slice(&fs::read(&path).expect("read config.json")).expect("JSON");
    config["ociVersion"] = json!("1.0.2");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/payload", "true"]);
    config["linux"]["cgroupsPath"] = json!(format!("{}/bundle", node.cgroup()));
    fs::write(path, config.to_string()).expect("write config.json");
    folder.display().to_string()
}
