//! Where the time of a pod start goes: the daemon's and the shim's own spans.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use coracle_integration::node::Node;
use coracle_integration::pods;
use serde_json::Value;

use crate::Options;
use crate::figures::{Report, Samples, milliseconds};
use crate::pods::{PAUSE, coracle};

/// Medians of every span, in the order in which the steps run.
pub(crate) fn of_a_pod(node: &Node, options: &Options, report: &mut Report) {
    let trace = node.scratch().join("trace.json");
    let daemon = coracle(node, &["--trace-steps", &trace.display().to_string()]);
    let cri = daemon.cri();
    for number in 0..options.rounds {
        let mut config = pods::sandbox(&format!("pod{number}"), &node.folder("logs"));
        config.port_mappings = vec![pods::port(18080, 8080)];
        let pod = cri.run(&config);
        let _ = cri.launch(&pod, &config, &pods::container("only", &["serve", "8080"]));
        cri.discard(&pod);
        thread::sleep(PAUSE);
    }
    report.say("spans of a pod's life (medians; an empty step is the whole request)");
    let text = fs::read_to_string(&trace).expect("read the spans");
    let mut spans: BTreeMap<String, Samples> = BTreeMap::new();
    let mut order = Vec::new();
    for span in text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        let (name, microseconds) = named(&span);
        if !spans.contains_key(&name) {
            order.push(name.clone());
        }
        spans
            .entry(name)
            .or_default()
            .add(Duration::from_micros(microseconds));
    }
    for name in &order {
        report.say(format!(
            "  {name:<50} {:>8.2} ms",
            milliseconds(spans[name].median())
        ));
    }
    shares(report, &spans);
}

/// CNI, shim and the rest, of the three requests that start a pod.
fn shares(report: &mut Report, spans: &BTreeMap<String, Samples>) {
    let sum = |wanted: &dyn Fn(&str) -> bool| -> f64 {
        spans
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(_, samples)| milliseconds(samples.median()))
            .sum()
    };
    let starts = ["run_pod_sandbox", "create_container", "start_container"];
    let whole = sum(&|name| starts.iter().any(|start| name == format!("{start} ")));
    let network = sum(&|name| name == "run_pod_sandbox network");
    let shim = sum(&|name| ["run_pod_sandbox shim", "run_pod_sandbox pod"].contains(&name));
    let runtime = sum(&|name| {
        [
            "create_container create",
            "create_container shim",
            "start_container start",
        ]
        .contains(&name)
    });
    report.say(format!(
        "  of {whole:.2} ms: CNI {network:.2}, shim and pod {shim:.2}, runtime (in the shim) {runtime:.2}, the daemon's own {:.2}",
        whole - network - shim - runtime
    ));
}

/// The daemon's operations are named as its files, the shim's as the calls of its protocol.
fn named(span: &Value) -> (String, u64) {
    let text = |key: &str| span[key].as_str().unwrap_or_default();
    let (operation, step) = (text("operation"), text("step"));
    let of_shim = operation.starts_with(|first: char| first.is_ascii_uppercase());
    let place = if of_shim { "    in the shim: " } else { "" };
    (
        format!("{place}{operation} {step}"),
        span["duration_us"].as_u64().unwrap_or(0),
    )
}
