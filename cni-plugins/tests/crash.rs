//! Whatever kills a plugin, fills the disk or comes at the same time: the next DEL leaves nothing, and nobody gets what
//! another one has.

mod node;

use node::{Node, attachment, bridge_conf, caller, list, on_node, single, with_ports};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// Moments at which a plugin is killed, and how far they are apart: an ADD takes 2 to 10 ms.
const MOMENTS: u64 = 60;
const STEP: Duration = Duration::from_micros(100);

fn env<'a>(command: &'a str, netns: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "k"),
        ("CNI_NETNS", netns),
    ]
}

/// Starts a plugin and kills it after a while.
fn kill(node: &Node, plugin: &str, command: &str, netns: &str, conf: &Value, after: Duration) {
    let mut child = node.start(plugin, &env(command, netns), conf);
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn assert_nothing_left(node: &Node, moment: u64) {
    node.until("the end of the veth", || {
        node.links().iter().all(|name| name == "cni0")
    });
    assert_eq!(node.addresses("net"), Vec::<String>::new(), "moment {moment}");
    assert!(!node.rules().contains("elements"), "moment {moment}");
    let owners = std::fs::read_dir("/run/ipam/net/.owners");
    assert_eq!(owners.into_iter().flatten().count(), 0, "moment {moment}");
}

fn ports_conf(prev: &Value) -> Value {
    let mut conf = single("1.0.0", json!({"type": "portmap"}));
    conf["runtimeConfig"] = json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}]});
    conf["prevResult"] = prev.clone();
    conf
}

#[test]
fn killed_at_any_moment_of_add_a_del_leaves_nothing() {
    on_node(|node| {
        let conf = single("1.0.0", bridge_conf());
        for moment in 0..MOMENTS {
            let netns = node.netns(&format!("k{moment}"));
            let path = netns.to_str().unwrap();
            let after = STEP * u32::try_from(moment).unwrap();
            kill(node, "bridge", "ADD", path, &conf, after);
            node.ok("bridge", &env("DEL", path), &conf);
            assert_nothing_left(node, moment);
            node.remove_netns(&netns);
        }
        node.uninstall("net");
    });
}

#[test]
fn a_bridge_that_a_killed_add_left_half_made_is_finished() {
    on_node(|node| {
        let half = ["link", "add", "cni0", "type", "bridge"];
        assert!(
            std::process::Command::new("ip")
                .args(half)
                .status()
                .unwrap()
                .success()
        );
        let netns = node.netns("k");
        let path = netns.to_str().unwrap();
        let conf = single("1.0.0", bridge_conf());
        node.ok("bridge", &env("ADD", path), &conf);
        for setting in ["accept_ra", "accept_dad"] {
            assert_eq!(
                node::setting(&format!("ipv6/conf/cni0/{setting}")),
                "0",
                "{setting}"
            );
        }
        node.ok("bridge", &env("DEL", path), &conf);
        assert_nothing_left(node, 0);
        node.uninstall("net");
        // It was there before: a network takes away only what it made.
        assert_eq!(node.links(), ["cni0"]);
        let gone = ["link", "del", "cni0"];
        assert!(
            std::process::Command::new("ip")
                .args(gone)
                .status()
                .unwrap()
                .success()
        );
    });
}

#[test]
fn killed_at_any_moment_of_del_the_next_del_leaves_nothing() {
    on_node(|node| {
        let conf = single("1.0.0", bridge_conf());
        for moment in 0..MOMENTS {
            let netns = node.netns(&format!("k{moment}"));
            let path = netns.to_str().unwrap();
            let after = STEP * u32::try_from(moment).unwrap();
            let result = node.ok("bridge", &env("ADD", path), &conf);
            let mut with_result = conf.clone();
            with_result["prevResult"] = result;
            kill(node, "bridge", "DEL", path, &with_result, after);
            // The namespace is gone by now, as after a reboot of the caller.
            node.remove_netns(&netns);
            node.ok("bridge", &env("DEL", path), &with_result);
            assert_nothing_left(node, moment);
        }
        node.uninstall("net");
    });
}

#[test]
fn killed_at_any_moment_of_publishing_ports_a_del_leaves_none() {
    on_node(|node| {
        let conf = single("1.0.0", bridge_conf());
        for moment in 0..MOMENTS / 2 {
            let netns = node.netns(&format!("k{moment}"));
            let path = netns.to_str().unwrap();
            let after = STEP * u32::try_from(moment).unwrap();
            let result = node.ok("bridge", &env("ADD", path), &conf);
            let ports = ports_conf(&result);
            let killed = if moment % 2 == 0 {
                "ADD"
            } else {
                node.ok("portmap", &env("ADD", path), &ports);
                "DEL"
            };
            kill(node, "portmap", killed, path, &ports, after);
            node.ok("portmap", &env("DEL", path), &ports);
            node.ok("bridge", &env("DEL", path), &conf);
            assert_nothing_left(node, moment);
            node.remove_netns(&netns);
        }
        node.uninstall("net");
    });
}

#[test]
fn fifty_that_come_and_go_at_once_share_nothing_and_leave_nothing() {
    on_node(|node| {
        let (list, caller) = (list("1.0.0"), caller());
        let paths: Vec<_> = (0..50u16).map(|n| (n, node.netns(&format!("s{n}")))).collect();
        let in_use = Mutex::new(HashSet::<IpAddr>::new());
        std::thread::scope(|scope| {
            for (n, path) in &paths {
                let (list, caller, in_use) = (&list, &caller, &in_use);
                scope.spawn(move || {
                    for round in 0..3 {
                        let ports = json!([{"hostPort": 10_000 + n, "containerPort": 80, "protocol": "tcp"}]);
                        let attach = with_ports(attachment(&format!("s{n}"), path), &ports);
                        let result = caller.add(list, &attach).unwrap();
                        let mine: Vec<_> = result.ips.iter().map(|ip| ip.address.addr()).collect();
                        for address in &mine {
                            assert!(
                                in_use.lock().unwrap().insert(*address),
                                "{address} was given twice"
                            );
                        }
                        for address in &mine {
                            in_use.lock().unwrap().remove(address);
                        }
                        let known = (round != 1).then_some(&result);
                        caller.del(list, &attach, known, false).unwrap();
                    }
                });
            }
        });
        assert_nothing_left(node, 0);
        node.uninstall("net");
    });
}

#[test]
fn a_full_disk_of_addresses_says_so_and_keeps_none_by_half() {
    on_node(|node| {
        let conf = single("1.0.0", bridge_conf());
        std::fs::create_dir("/run/ipam").unwrap();
        let (mut refused, mut given) = (0, 0);
        // One more file fits each time: the disk is full at each write in turn.
        for inodes in 1..20u64 {
            nix::mount::mount(
                Some("none"),
                "/run/ipam",
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                Some(format!("nr_inodes={inodes}").as_str()),
            )
            .unwrap();
            let netns = node.netns(&format!("k{inodes}"));
            let path = netns.to_str().unwrap();
            let output = node.call("bridge", &env("ADD", path), &conf);
            if output.status.success() {
                given += 1;
            } else {
                refused += 1;
                let error: Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(error["code"], 5, "{error}");
                let text = format!("{} {}", error["msg"], error["details"]);
                assert!(
                    text.contains("address store") && text.contains("No space left"),
                    "{text}"
                );
                assert_nothing_left(node, inodes);
            }
            node.ok("bridge", &env("DEL", path), &conf);
            assert_nothing_left(node, inodes);
            node.remove_netns(&netns);
            nix::mount::umount(Path::new("/run/ipam")).unwrap();
        }
        assert!(refused > 3 && given > 3, "{refused} refused, {given} given");
        std::fs::remove_dir("/run/ipam").unwrap();
        node.uninstall("net");
    });
}
