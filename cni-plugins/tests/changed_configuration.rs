//! The configuration changed while containers were attached: DEL and GC remove what the earlier one had made.

mod node;

use coracle_cni_protocol::ConfList;
use node::{Node, attachment, bridge_conf, caller, list_of, on_node, with_ports};
use serde_json::{Value, json};

fn list(changes: &[(usize, &str, Value)]) -> ConfList {
    let mut plugins = json!([bridge_conf(), {"type": "portmap", "capabilities": {"portMappings": true}}]);
    for (plugin, key, value) in changes {
        plugins[*plugin][*key] = value.clone();
    }
    list_of("1.1.0", plugins)
}

/// Attaches under `before`, detaches under `after`: no element may be left.
fn leaves_no_element(node: &Node, before: &ConfList, after: &ConfList, with_result: bool) {
    let netns = node.netns("a");
    let ports = json!([{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8081, "containerPort": 81}]);
    let attach = with_ports(attachment("a", &netns), &ports);
    let result = caller().add(before, &attach).unwrap();
    assert!(node.rules().contains("net/a/eth0"));
    let result = with_result.then_some(&result);
    caller().del(after, &attach, result, false).unwrap();
    assert!(!node.rules().contains("net/a/eth0"), "{}", node.rules());
    node.until("the end of the veth", || node.links() == ["cni0"]);
    node.remove_netns(&netns);
}

#[test]
fn del_removes_elements_that_the_configuration_no_longer_asks_for() {
    on_node(|node| {
        let before = list(&[]);
        let changes = [
            (0, "ipMasq", json!(false)),
            (0, "ipMasq", json!("nonsense")),
            (1, "snat", json!(false)),
            (1, "masqAll", json!(true)),
            (1, "backend", json!("nonsense")),
        ];
        for change in changes {
            for with_result in [true, false] {
                leaves_no_element(node, &before, &list(std::slice::from_ref(&change)), with_result);
            }
        }
        node.uninstall("net");
    });
}

#[test]
fn del_removes_ports_that_the_caller_no_longer_names() {
    on_node(|node| {
        let netns = node.netns("a");
        let two = json!([{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8081, "containerPort": 81}]);
        let other = json!([{"hostPort": 8080, "containerPort": 80}, {"hostPort": 9091, "containerPort": 81}]);
        let before = with_ports(attachment("a", &netns), &two);
        let after = with_ports(attachment("a", &netns), &other);
        let result = caller().add(&list(&[]), &before).unwrap();
        caller().del(&list(&[]), &after, Some(&result), false).unwrap();
        assert!(!node.rules().contains("net/a/eth0"), "{}", node.rules());
        node.until("the end of the veth", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}

/// The policy is the bridge's: the last ADD's counts.
#[test]
fn a_bridge_is_opened_when_the_policy_says_so() {
    on_node(|node| {
        let list = |policy: &str| {
            let mut conf = bridge_conf();
            conf["ipMasq"] = json!(false);
            list_of(
                "1.0.0",
                json!([conf, {"type": "firewall", "ingressPolicy": policy}]),
            )
        };
        for (at, (policy, closed, within)) in [
            ("same-bridge", true, true),
            ("isolated", true, false),
            ("same-bridge", true, true),
            ("open", false, false),
        ]
        .into_iter()
        .enumerate()
        {
            let attach = attachment(&format!("c{at}"), &node.netns(&format!("c{at}")));
            let result = caller().add(&list(policy), &attach).unwrap();
            let has = |set: &str| {
                let output = std::process::Command::new("nft")
                    .args(["list", "set", "inet", "coracle", set])
                    .output()
                    .unwrap();
                String::from_utf8_lossy(&output.stdout).contains("elements")
            };
            assert_eq!(
                (has("closed_bridges"), has("within_bridge")),
                (closed, within),
                "{at}: {policy}"
            );
            caller()
                .del(&list(policy), &attach, Some(&result), false)
                .unwrap();
        }
        node.uninstall("net");
    });
}

#[test]
fn gc_removes_elements_that_the_configuration_no_longer_asks_for() {
    on_node(|node| {
        let (a, b) = (node.netns("a"), node.netns("b"));
        let ports = json!([{"hostPort": 8080, "containerPort": 80}]);
        caller()
            .add(&list(&[]), &with_ports(attachment("a", &a), &ports))
            .unwrap();
        caller().add(&list(&[]), &attachment("b", &b)).unwrap();
        let after = list(&[(0, "ipMasq", json!(false)), (1, "snat", json!(false))]);
        let valid = coracle_cni_protocol::ValidAttachment {
            container_id: "b".into(),
            ifname: "eth0".into(),
        };
        caller().gc(&after, &[valid]).unwrap();
        let rules = node.rules();
        assert!(
            !rules.contains("net/a/eth0") && rules.contains("net/b/eth0"),
            "{rules}"
        );
        caller().gc(&after, &[]).unwrap();
        assert!(!node.rules().contains("elements"), "{}", node.rules());
        node.until("the end of the veths", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}
