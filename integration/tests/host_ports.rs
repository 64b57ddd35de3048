//! A host port, reached from the node itself and from another host.
//!
//! ```text
//!  other host (a network namespace)            node                                pod
//!  192.0.2.2, fd00:2::2 --- veth --- 192.0.2.1, fd00:2::1 :18080 --- cbr0 --- :8080
//! ```

use std::process::Command;

use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::node::Node;
use coracle_integration::{node, pods, wait};

/// curl(1): the time ran out, so the packets left and nobody answered.
const TIMED_OUT: Option<i32> = Some(28);

#[test]
fn a_host_port_is_reached_from_here_and_from_another_host() {
    node::run("host-ports", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        make_other_host(node);
        let cri = daemon.cri();
        let mut config = pods::sandbox("port", &node.folder("logs"));
        config.port_mappings = vec![pods::port(18080, 8080)];
        let pod = cri.run(&config);
        let _ = cri.launch(&pod, &config, &pods::container("c", &["serve", "8080"]));

        for address in ["127.0.0.1", "192.0.2.1"] {
            answers(address, || node.command("curl"));
        }
        for address in ["192.0.2.1", "[fd00:2::1]"] {
            answers(address, || on_other_host(node));
        }
        // The node takes packets for 127.0.0.1 on its bridge, for its own connections; nobody else's may get through.
        let refused = get("127.0.0.1", &mut on_other_host(node));
        assert_eq!(refused.status.code(), TIMED_OUT, "{refused:?}");

        cri.discard(&pod);
        let closed = get("192.0.2.1", &mut on_other_host(node));
        assert!(
            !closed.status.success(),
            "the port is gone with its pod: {closed:?}"
        );
        node.does(&["ip", "link", "delete", "up0"]);
        node.does(&["ip", "netns", "delete", "other"]);
        // ip-netns(8) binds its folder to itself.
        node.does(&["umount", "/run/netns"]);
        node.does(&["rmdir", "/run/netns"]);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

fn make_other_host(node: &Node) {
    node.does(&["ip", "netns", "add", "other"]);
    node.does(&[
        "ip", "link", "add", "up0", "type", "veth", "peer", "eth0", "netns", "other",
    ]);
    for (place, link, v4, v6) in [
        (None, "up0", "192.0.2.1/24", "fd00:2::1/64"),
        (Some("other"), "eth0", "192.0.2.2/24", "fd00:2::2/64"),
    ] {
        let ip = |words: &[&str]| {
            let place = place.map_or(vec![], |name| vec!["-n", name]);
            node.does(&[&["ip"], place.as_slice(), words].concat());
        };
        ip(&["address", "add", v4, "dev", link]);
        ip(&["address", "add", v6, "dev", link, "nodad"]);
        ip(&["link", "set", link, "up"]);
    }
    // Its own `lo` is down, so that it can send to the node's 127.0.0.1.
    node.does(&[
        "ip",
        "-n",
        "other",
        "route",
        "add",
        "127.0.0.0/8",
        "via",
        "192.0.2.1",
    ]);
}

fn on_other_host(node: &Node) -> Command {
    let mut command = node.command("ip");
    command.args(["netns", "exec", "other", "curl"]);
    command
}

fn answers(address: &str, curl: impl Fn() -> Command) {
    let answered = wait::until(wait::SOON, || {
        let output = get(address, &mut curl());
        if String::from_utf8_lossy(&output.stdout).contains("port") {
            Ok(())
        } else {
            Err(output)
        }
    });
    answered.unwrap_or_else(|output| panic!("{address}: {output:?}"));
}

fn get(address: &str, curl: &mut Command) -> std::process::Output {
    let url = format!("http://{address}:18080/");
    curl.args(["-gsS", "--max-time", "5", &url]).output().unwrap()
}
