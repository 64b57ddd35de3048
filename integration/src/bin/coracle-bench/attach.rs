//! What attaching one more pod to a network costs with one pod there, and with many.

use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use coracle_integration::node::Node;
use coracle_integration::programs;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::Options;
use crate::figures::{Report, Samples};
use crate::pods::{PAUSE, timed};

/// A bridge has at most 1023 ports.
const MANY: usize = 900;

/// Processor time of an ADD, the kernel's work for it included, does not follow the number of pods: what is left to follow
/// it is the bridge's own look through its ports when one comes.
const BOUND: f64 = 3.0;

/// Attaches pods to a bridge by `bridge` and `portmap` until there are 900, and measures ADD at the beginning and the end.
pub(crate) fn with_many(node: &Node, options: &Options, report: &mut Report) {
    report.say(format!(
        "ADD of bridge and portmap beside 1 pod and beside {MANY}"
    ));
    let bin = node.folder("cni-bin").display().to_string();
    node.does(&[
        &programs::ours("coracle-cni").display().to_string(),
        "install",
        &bin,
    ]);
    let network = Network { node, bin };
    network.attach(0);
    let few = network.measure(MANY, options.rounds);
    (1..MANY).for_each(|number| network.attach(number));
    // The new pods' own announcements are over by then: reports of multicast groups, questions for routers.
    thread::sleep(Duration::from_secs(10));
    let many = network.measure(MANY + options.rounds, options.rounds);
    report.compare(
        "processor time of ADD",
        &many.processor,
        ("one pod", &few.processor),
        BOUND,
    );
    report.say(format!(
        "    time of ADD: {} beside {MANY}, {} beside one",
        many.time, few.time
    ));
}

#[derive(Default)]
struct Cost {
    time: Samples,
    processor: Samples,
}

struct Network<'a> {
    node: &'a Node,
    bin: String,
}

impl Network<'_> {
    /// Attaches and detaches pods, one after the other.
    fn measure(&self, from: usize, rounds: usize) -> Cost {
        let mut cost = Cost::default();
        for number in from..from + rounds {
            self.make_namespace(number);
            let before = processor_time();
            let (result, took) = timed(|| self.add(number));
            cost.processor.add(processor_time().saturating_sub(before));
            cost.time.add(took);
            thread::sleep(PAUSE);
            self.call("portmap", "DEL", number, &result);
            self.call("bridge", "DEL", number, &result);
            self.node.does(&["ip", "netns", "del", &name(number)]);
            thread::sleep(PAUSE);
        }
        cost
    }

    fn attach(&self, number: usize) {
        self.make_namespace(number);
        self.add(number);
    }

    fn make_namespace(&self, number: usize) {
        self.node.does(&["ip", "netns", "add", &name(number)]);
    }

    fn add(&self, number: usize) -> Value {
        let result = self.call("bridge", "ADD", number, &Value::Null);
        self.call("portmap", "ADD", number, &result)
    }

    fn call(&self, plugin: &str, command: &str, number: usize, before: &Value) -> Value {
        let pod = name(number);
        let mut call = self.node.command(format!("{}/{plugin}", self.bin));
        call.env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod)
            .env("CNI_NETNS", format!("/run/netns/{pod}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = call.spawn().expect("start the plugin");
        let config = config(plugin, number, before).to_string();
        let mut input = child.stdin.take().expect("the plugin's input");
        input
            .write_all(config.as_bytes())
            .expect("write the configuration");
        drop(input);
        let output = child.wait_with_output().expect("wait for the plugin");
        assert!(output.status.success(), "{}", programs::said(&call, &output));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

fn name(number: usize) -> String {
    format!("pod{number}")
}

fn config(plugin: &str, number: usize, before: &Value) -> Value {
    let mut config = match plugin {
        "bridge" => json!({
            "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
            "ipam": {"type": "host-local", "dataDir": "/run/ipam",
                     "ranges": [[{"subnet": "10.7.0.0/16"}], [{"subnet": "fd07::/64"}]]},
        }),
        _ => json!({"runtimeConfig": {"portMappings": [
            {"hostPort": 10_000 + number, "containerPort": 80, "protocol": "tcp"}]}}),
    };
    config["cniVersion"] = json!("1.0.0");
    config["name"] = json!("many");
    config["type"] = json!(plugin);
    if !before.is_null() {
        config["prevResult"] = before.clone();
    }
    config
}

/// Of all plugins so far; the kernel's work in their calls is theirs.
fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("read the children's usage");
    [usage.user_time(), usage.system_time()]
        .into_iter()
        .map(|time| {
            let microseconds = time.tv_sec() * 1_000_000 + time.tv_usec();
            Duration::from_micros(u64::try_from(microseconds).unwrap_or_default())
        })
        .sum()
}
