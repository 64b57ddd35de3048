//! A node whose chain FORWARD drops, as Docker and ufw leave it: what containers send is forwarded all the same.

mod node;

use coracle_cni_protocol::ValidAttachment;
use node::{Node, attachment, bridge_conf, caller, closed, list_of, on_node, serve};
use serde_json::json;
use std::path::Path;
use std::process::Command;

const BOTH: [&str; 2] = ["iptables", "ip6tables"];

fn list() -> coracle_cni_protocol::ConfList {
    list_of(
        "1.1.0",
        json!([bridge_conf(), {"type": "firewall", "backend": "iptables"}]),
    )
}

fn iptables(program: &str, args: &str) -> String {
    let output = Command::new(program).args(args.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args}: {text}{complaint}");
    text
}

fn drop_forwarded() {
    for program in BOTH {
        iptables(program, "-P FORWARD DROP");
    }
}

/// What is in the tables that iptables keeps, which must stay ones that it can read.
fn shown() -> Vec<String> {
    BOTH.map(|program| iptables(program, "-S")).into()
}

fn reaches_out(node: &Node, pod: &Path) -> bool {
    ["192.0.3.9", "2001:db8:1::9"]
        .iter()
        .all(|to| node.inside(pod, || node::ask(to, 80)).is_ok())
}

/// The tables that `iptables -P` made.
fn forget_tables() {
    for family in ["ip", "ip6"] {
        let delete = Command::new("nft")
            .args(["delete", "table", family, "filter"])
            .status();
        assert!(delete.unwrap().success());
    }
}

#[test]
fn what_a_container_sends_passes_a_chain_that_drops() {
    on_node(|node| {
        let other = node.other_host(1);
        serve(node, &other, 80);
        drop_forwarded();
        let before = shown();
        let (a, b) = (node.netns("a"), node.netns("b"));
        let (list, caller) = (list(), caller());
        let first = caller.add(&list, &attachment("a", &a)).unwrap();
        let second = caller.add(&list, &attachment("b", &b)).unwrap();
        node.check(&list, &attachment("a", &a), &first);
        assert!(reaches_out(node, &a) && reaches_out(node, &b));
        // The answers come in, others do not.
        serve(node, &a, 80);
        let pod = node::first(&first, false).to_string();
        node.inside(&other, || {
            let route = ["route", "add", "10.7.0.0/16", "via", "192.0.3.1"];
            assert!(Command::new("ip").args(route).status().unwrap().success());
            assert!(closed(&pod, 80));
        });
        let during = shown().join("");
        assert!(
            during.contains(&format!("-s {pod}/32"))
                && during.contains("--ctstate RELATED,ESTABLISHED")
                && during.contains("net/a/eth0"),
            "{during}"
        );
        caller
            .del(&list, &attachment("a", &a), Some(&first), false)
            .unwrap();
        assert!(!node.rules().contains("net/a/eth0"), "{}", node.rules());
        assert!(reaches_out(node, &b), "b is not touched by the end of a");
        for _ in 0..2 {
            caller
                .del(&list, &attachment("b", &b), Some(&second), false)
                .unwrap();
        }
        assert!(!node.rules().contains("net/b/eth0"), "{}", node.rules());
        node.uninstall("net");
        assert_eq!(shown(), before);
        forget_tables();
    });
}

#[test]
fn a_chain_that_drops_later_does_not_cut_containers_off() {
    on_node(|node| {
        let other = node.other_host(1);
        serve(node, &other, 80);
        let netns = node.netns("a");
        let result = caller().add(&list(), &attachment("a", &netns)).unwrap();
        drop_forwarded();
        assert!(reaches_out(node, &netns));
        // Somebody removes all rules: the next container brings the jump back.
        for program in BOTH {
            iptables(program, "-F FORWARD");
        }
        let error = node.fails(
            "firewall",
            &[
                ("CNI_COMMAND", "CHECK"),
                ("CNI_CONTAINERID", "a"),
                ("CNI_NETNS", netns.to_str().unwrap()),
            ],
            &node::single(
                "1.1.0",
                json!({"type": "firewall", "prevResult": result.to_json(coracle_cni_protocol::Version::V1_1_0)}),
            ),
        );
        assert!(error["msg"].as_str().unwrap().contains("not accepted"), "{error}");
        let b = node.netns("b");
        caller().add(&list(), &attachment("b", &b)).unwrap();
        assert!(reaches_out(node, &netns) && reaches_out(node, &b));
        caller()
            .gc(
                &list(),
                &[ValidAttachment {
                    container_id: "b".into(),
                    ifname: "eth0".into(),
                }],
            )
            .unwrap();
        let rules = node.rules();
        assert!(
            !rules.contains("net/a/eth0") && rules.contains("net/b/eth0"),
            "{rules}"
        );
        caller().gc(&list(), &[]).unwrap();
        node.until("the end of the veths", || node.links() == ["cni0"]);
        node.uninstall("net");
        // The policy is another one's: the table stays, and nothing of ours is in it.
        let left = node.rules();
        assert!(
            !left.contains("CORACLE") && left.contains("policy drop"),
            "{left}"
        );
        forget_tables();
    });
}

#[test]
fn tables_that_nobody_else_uses_go_with_the_network() {
    on_node(|node| {
        let netns = node.netns("a");
        let result = caller().add(&list(), &attachment("a", &netns)).unwrap();
        assert!(node.rules().contains("CORACLE-FORWARD"));
        caller()
            .del(&list(), &attachment("a", &netns), Some(&result), false)
            .unwrap();
        node.uninstall("net");
        assert_eq!(node.rules(), "");
    });
}
