//! Containers on a bridge: they reach each other and other hosts, and leave nothing behind.

mod node;

use node::{Node, attachment, bridge_conf, caller, list, list_of, on_node, serve, single};
use serde_json::{Value, json};
use std::path::Path;

fn env<'a>(command: &'a str, id: &'a str, netns: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", id),
        ("CNI_NETNS", netns),
    ]
}

#[test]
fn two_pods_reach_each_other_and_other_hosts_see_the_nodes_address() {
    on_node(|node| {
        let other = node.other_host(1);
        let (a, b) = (node.netns("a"), node.netns("b"));
        let (list, caller) = (list("1.1.0"), caller());
        let result_a = caller.add(&list, &attachment("a", &a)).unwrap();
        let result_b = caller.add(&list, &attachment("b", &b)).unwrap();
        serve(node, &b, 80);
        serve(node, &other, 80);
        for v6 in [false, true] {
            let to = node::first(&result_b, v6).to_string();
            let seen = node.inside(&a, || node::ask(&to, 80)).unwrap();
            assert_eq!(
                seen,
                node::first(&result_a, v6).to_string(),
                "between pods: as it is"
            );
            assert!(node::ask(&to, 80).is_ok(), "from the node");
        }
        assert_eq!(
            node.inside(&a, || node::ask("192.0.3.9", 80)).unwrap(),
            "192.0.3.1",
            "masqueraded"
        );
        assert_eq!(
            node.inside(&a, || node::ask("2001:db8:1::9", 80)).unwrap(),
            "2001:db8:1::1",
            "masqueraded"
        );
        caller
            .del(&list, &attachment("a", &a), Some(&result_a), false)
            .unwrap();
        assert!(
            node::ask(&node::first(&result_b, false).to_string(), 80).is_ok(),
            "b is not touched by the end of a"
        );
        caller
            .del(&list, &attachment("b", &b), Some(&result_b), false)
            .unwrap();
        node.until("the end of the veths", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}

#[test]
fn a_veth_goes_with_its_namespace_when_the_caller_says_so() {
    on_node(|node| {
        let netns = node.netns("a");
        let (list, caller) = (list("1.0.0"), caller());
        let result = caller.add(&list, &attachment("a", &netns)).unwrap();
        caller
            .del(&list, &attachment("a", &netns), Some(&result), true)
            .unwrap();
        let left = node.links();
        assert_eq!(left.len(), 2, "the veth is there, off the bridge: {left:?}");
        assert_eq!(node.addresses("net"), Vec::<String>::new());
        node.remove_netns(&netns);
        node.until("the end of the veth", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}

/// A caller that keeps the namespace must not see the interface in it after DEL.
#[test]
fn when_del_returns_the_interface_is_gone() {
    on_node(|node| {
        let netns = node.netns("a");
        let (list, caller) = (list("1.0.0"), caller());
        for _ in 0..10 {
            let result = caller.add(&list, &attachment("a", &netns)).unwrap();
            caller
                .del(&list, &attachment("a", &netns), Some(&result), false)
                .unwrap();
            assert_eq!(node.links(), ["cni0"]);
            let inside = node.inside(&netns, node::link_names);
            assert!(!inside.contains(&"eth0".to_owned()), "{inside:?}");
        }
        node.uninstall("net");
    });
}

#[test]
fn status_fails_where_add_would() {
    on_node(|node| {
        let list = |key: &str, value: Value| {
            let mut conf = bridge_conf();
            conf[key] = value;
            list_of("1.1.0", json!([conf, {"type": "portmap"}, {"type": "firewall"}]))
        };
        caller().status(&list("mtu", json!(1400))).unwrap();
        for (key, value, want) in [
            ("bridge", json!("lo"), "already exists but is not a bridge"),
            ("mtu", json!(7), "mtu: 7"),
            (
                "ipam",
                json!({"type": "unheard-of"}),
                "failed to find plugin \"unheard-of\"",
            ),
        ] {
            let error = caller().status(&list(key, value)).unwrap_err();
            let text = coracle_cni_protocol::chain(&error);
            assert!(
                text.starts_with("plugin bridge: ") && text.contains(want),
                "{text}"
            );
        }
        // Nothing was made to find out.
        assert_eq!(node.links(), Vec::<String>::new());
    });
}

/// Every container on it has the gateway's MAC address in its neighbour table.
#[test]
fn a_bridge_that_is_there_keeps_its_mac_address() {
    on_node(|node| {
        let ip = |args: &str| {
            let done = std::process::Command::new("ip")
                .args(args.split(' '))
                .output()
                .unwrap();
            assert!(done.status.success(), "ip {args}");
        };
        let conf = single("1.0.0", bridge_conf());
        for with_port in [false, true] {
            ip("link add cni0 type bridge");
            if with_port {
                ip("link add port0 address fe:ff:ff:ff:ff:fe type veth peer name port1");
                ip("link set port0 master cni0");
            }
            ip("link set cni0 up");
            let before = node.mac("cni0");
            let netns = node.netns(&format!("a{with_port}"));
            let path = netns.to_str().unwrap();
            let result = node.ok("bridge", &env("ADD", "a", path), &conf);
            assert_eq!(node.mac("cni0"), before, "with a port: {with_port}");
            assert_eq!(result["interfaces"][0]["mac"], before);
            node.ok("bridge", &env("DEL", "a", path), &conf);
            node.uninstall("net");
            if with_port {
                ip("link del port0");
            }
            ip("link del cni0");
        }
    });
}

#[test]
fn results_have_upstreams_order_in_every_version() {
    on_node(|node| {
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let netns = node.netns(&format!("v{version}"));
            let path = netns.to_str().unwrap();
            let conf = single(version, bridge_conf());
            let result = node.ok("bridge", &env("ADD", version, path), &conf);
            assert_eq!(result["cniVersion"], version);
            let names: Vec<_> = result["interfaces"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["name"].clone())
                .collect();
            assert_eq!(names[0], "cni0");
            assert!(names[1].as_str().unwrap().starts_with("veth"));
            assert_eq!(names[2], "eth0");
            assert_eq!(result["interfaces"][2]["sandbox"], path);
            assert_eq!(result["ips"][0]["interface"], 2);
            assert_eq!(
                result["ips"][0]["version"],
                if version < "1" { json!("4") } else { Value::Null }
            );
            assert_eq!(
                result["routes"],
                json!([{"dst": "0.0.0.0/0", "gw": "10.7.0.1"}, {"dst": "::/0", "gw": "fd07::1"}])
            );
            if version != "0.3.1" {
                let mut with_result = conf.clone();
                with_result["prevResult"] = result;
                node.ok("bridge", &env("CHECK", version, path), &with_result);
            }
            node.ok("bridge", &env("DEL", version, path), &conf);
        }
        node.until("the end of the veths", || node.links() == ["cni0"]);
        assert_eq!(node.addresses("net"), Vec::<String>::new());
        assert!(!node.rules().contains("elements"), "{}", node.rules());
        node.uninstall("net");
    });
}

#[test]
fn del_finds_everything_without_namespace_and_result_and_may_be_repeated() {
    on_node(|node| {
        let netns = node.netns("a");
        let path = netns.to_str().unwrap();
        let conf = single("1.0.0", bridge_conf());
        for given in ["", "/run/netns/gone", path] {
            node.ok("bridge", &env("ADD", "a", path), &conf);
            for _ in 0..3 {
                assert_eq!(node.ok("bridge", &env("DEL", "a", given), &conf), Value::Null);
            }
            node.until("the end of the veth", || node.links() == ["cni0"]);
            assert_eq!(node.addresses("net"), Vec::<String>::new());
            assert!(!node.rules().contains("elements"), "{}", node.rules());
        }
        node.uninstall("net");
    });
}

#[test]
fn a_repeated_del_leaves_the_next_owner_of_the_address_alone() {
    on_node(|node| {
        let (a, b) = (node.netns("a"), node.netns("b"));
        let mut conf = bridge_conf();
        // Two addresses: the second container gets the first one's again.
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.7.0.0/30", "gateway": "10.7.0.1"}]]);
        let (list, caller) = (list_of("1.0.0", json!([conf])), caller());
        let first = caller.add(&list, &attachment("a", &a)).unwrap();
        caller
            .del(&list, &attachment("a", &a), Some(&first), false)
            .unwrap();
        let second = caller.add(&list, &attachment("b", &b)).unwrap();
        assert_eq!(node::first(&first, false), node::first(&second, false));
        caller
            .del(&list, &attachment("a", &a), Some(&first), false)
            .unwrap();
        assert!(node.rules().contains("net/b/eth0"));
        assert_eq!(node.addresses("net").len(), 1);
        node.check(&list, &attachment("b", &b), &second);
        caller
            .del(&list, &attachment("b", &b), Some(&second), false)
            .unwrap();
        node.until("the end of the veths", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}

#[test]
fn del_and_add_again_at_once_works() {
    on_node(|node| {
        let netns = node.netns("a");
        let (list, caller) = (list("1.0.0"), caller());
        for _ in 0..20 {
            // The child of the last DEL is about to delete the veth, or just has.
            let result = caller.add(&list, &attachment("a", &netns)).unwrap();
            caller
                .del(&list, &attachment("a", &netns), Some(&result), false)
                .unwrap();
        }
        node.until("the end of the veth", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}

#[test]
fn a_second_add_fails_and_leaves_the_first_as_it_is() {
    on_node(|node| {
        let netns = node.netns("a");
        let path = netns.to_str().unwrap();
        let conf = single("1.0.0", bridge_conf());
        let result = node.ok("bridge", &env("ADD", "a", path), &conf);
        let error = node.fails("bridge", &env("ADD", "a", path), &conf);
        assert!(error["msg"].as_str().unwrap().contains("eth0"), "{error}");
        let mut with_result = conf.clone();
        with_result["prevResult"] = result;
        node.ok("bridge", &env("CHECK", "a", path), &with_result);
        node.ok("bridge", &env("DEL", "a", path), &conf);
        node.until("the end of the veth", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}

#[test]
fn a_failed_add_leaves_nothing() {
    on_node(|node| {
        let netns = node.netns("a");
        let path = netns.to_str().unwrap();
        let cases: [(&str, Value); 3] = [
            // The gateway is unreachable: refused by the kernel after everything else was made.
            ("routes", json!([{"dst": "1.2.3.0/24", "gw": "9.9.9.9"}])),
            ("rangeStart", json!("10.9.0.1")),
            ("subnet", json!("10.7.0.1/24")),
        ];
        for (key, value) in cases {
            let mut conf = single("1.0.0", bridge_conf());
            conf["ipam"] = json!({"type": "host-local", "dataDir": "/run/ipam", "subnet": "10.7.0.0/24"});
            conf["ipam"][key] = value;
            node.fails("bridge", &env("ADD", "a", path), &conf);
            assert_eq!(node.links(), ["cni0"], "{key}");
            assert_eq!(node.addresses("net"), Vec::<String>::new(), "{key}");
            assert!(!node.rules().contains("elements"), "{key}");
        }
        node.uninstall("net");
    });
}

#[test]
fn a_hundred_at_once_get_addresses_of_their_own() {
    on_node(|node| {
        let list = list("1.0.0");
        let paths: Vec<_> = (0..100).map(|n| node.netns(&format!("c{n}"))).collect();
        let add = |paths: &[std::path::PathBuf], from: usize| -> Vec<std::net::IpAddr> {
            let one = |(n, path): (usize, &std::path::PathBuf)| {
                let result = caller()
                    .add(&list, &attachment(&format!("c{}", from + n), path))
                    .unwrap();
                result.ips.iter().map(|ip| ip.address.addr()).collect::<Vec<_>>()
            };
            paths.iter().enumerate().flat_map(one).collect()
        };
        let mut all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = paths
                .chunks(5)
                .enumerate()
                .map(|(n, part)| scope.spawn(move || add(part, n * 5)))
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(all.len(), 200);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 200);
        // All but three are stale.
        let valid: Vec<_> = [3, 50, 99]
            .map(|n| coracle_cni_protocol::ValidAttachment {
                container_id: format!("c{n}"),
                ifname: "eth0".into(),
            })
            .into();
        let newest = node::list("1.1.0");
        caller().gc(&newest, &valid).unwrap();
        assert_eq!(node.addresses("net").len(), 6);
        assert_eq!(node.links().len(), 4);
        let rules = node.rules();
        assert!(
            rules.contains("net/c50/eth0") && !rules.contains("net/c51/eth0"),
            "{rules}"
        );
        caller().gc(&newest, &[]).unwrap();
        assert_eq!((node.addresses("net").len(), node.links().len()), (0, 1));
        assert!(!node.rules().contains("elements"));
        node.uninstall("net");
    });
}

#[test]
fn check_names_what_is_different() {
    on_node(|node| {
        let netns = node.netns("a");
        let path = netns.to_str().unwrap();
        let changes: [(&str, &[&str], bool); 5] = [
            ("eth0 is down", &["ip", "link", "set", "eth0", "down"], true),
            (
                "lacks address",
                &["ip", "addr", "flush", "dev", "eth0", "scope", "global"],
                true,
            ),
            ("route", &["ip", "route", "del", "default"], true),
            ("cni0 is down", &["ip", "link", "set", "cni0", "down"], false),
            ("masquerading", &["nft", "flush", "ruleset"], false),
        ];
        for (want, command, inside) in changes {
            let conf = single("1.1.0", bridge_conf());
            let result = node.ok("bridge", &env("ADD", "a", path), &conf);
            let run = || {
                let done = std::process::Command::new(command[0])
                    .args(&command[1..])
                    .status();
                assert!(done.unwrap().success());
            };
            match inside {
                true => node.inside(&netns, run),
                false => run(),
            }
            let mut with_result = conf.clone();
            with_result["prevResult"] = result;
            let error = node.fails("bridge", &env("CHECK", "a", path), &with_result);
            assert!(error["msg"].as_str().unwrap().contains(want), "{want}: {error}");
            node.ok("bridge", &env("DEL", "a", path), &conf);
            node.until("the end of the veth", || node.links() == ["cni0"]);
            node.until("the end in the container", || {
                !node.inside(&netns, || {
                    Path::new("/proc/thread-self/net/dev_snmp6/eth0").exists()
                })
            });
        }
        node.uninstall("net");
    });
}

#[test]
fn settings_of_the_bridge_are_followed() {
    on_node(|node: &Node| {
        let netns = node.netns("a");
        let path = netns.to_str().unwrap();
        let mut conf = single("1.1.0", bridge_conf());
        conf["mtu"] = json!(1400);
        conf["hairpinMode"] = json!(true);
        conf["portIsolation"] = json!(true);
        conf["args"] = json!({"cni": {"mac": "02:11:22:33:44:55"}});
        conf["dns"] = json!({"nameservers": ["9.9.9.9"]});
        conf["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "mtu": 1300, "advmss": 1200, "priority": 7}]);
        let mut with_args = env("ADD", "a", path);
        with_args.push(("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.7.0.77"));
        let result = node.ok("bridge", &with_args, &conf);
        assert_eq!(result["ips"][0]["address"], "10.7.0.77/16");
        assert_eq!(result["interfaces"][2]["mac"], "02:11:22:33:44:55");
        assert_eq!(result["interfaces"][2]["mtu"], 1400);
        assert_eq!(result["dns"], json!({"nameservers": ["9.9.9.9"]}));
        let show = |args: &[&str]| {
            String::from_utf8(
                std::process::Command::new("ip")
                    .args(args)
                    .output()
                    .unwrap()
                    .stdout,
            )
            .unwrap()
        };
        let port = show(&[
            "-d",
            "link",
            "show",
            result["interfaces"][1]["name"].as_str().unwrap(),
        ]);
        for want in [
            "hairpin on",
            "isolated on",
            "mtu 1400",
            "alias net/a/eth0",
            "master cni0",
        ] {
            assert!(port.contains(want), "{want}: {port}");
        }
        let inside = node.inside(&netns, || show(&["route"]) + &show(&["link"]));
        for want in [
            "192.0.2.0/24 via 10.7.0.1 dev eth0",
            "metric 7 mtu 1300 advmss 1200",
            "02:11:22:33:44:55",
        ] {
            assert!(inside.contains(want), "{want}: {inside}");
        }
        // Another network with another address on the same bridge.
        let other = node.netns("b");
        let mut second = single("1.1.0", bridge_conf());
        second["name"] = json!("second");
        second["ipam"]["ranges"] = json!([[{"subnet": "10.8.0.0/16"}]]);
        let error = node.fails("bridge", &env("ADD", "b", other.to_str().unwrap()), &second);
        assert!(
            error["msg"]
                .as_str()
                .unwrap()
                .contains("already has an IP address"),
            "{error}"
        );
        second["forceAddress"] = json!(true);
        node.ok("bridge", &env("ADD", "b", other.to_str().unwrap()), &second);
        node.ok("bridge", &env("DEL", "b", ""), &second);
        node.ok("bridge", &env("DEL", "a", ""), &conf);
        node.until("the end of the veths", || node.links() == ["cni0"]);
        node.uninstall("net");
        node.uninstall("second");
    });
}

#[test]
fn an_address_that_changes_hands_keeps_its_mac_address() {
    on_node(|node| {
        let mut conf = bridge_conf();
        conf["ipam"] = json!({"type": "host-local", "dataDir": "/run/ipam", "ranges": [
            [{"subnet": "10.7.0.0/16", "rangeStart": "10.7.0.9", "rangeEnd": "10.7.0.9"}],
            [{"subnet": "fd07::/64", "rangeStart": "fd07::9", "rangeEnd": "fd07::9"}]]});
        let list = list_of("1.0.0", json!([conf]));
        let macs = ["a", "b"].map(|id| {
            let attach = attachment(id, &node.netns(id));
            let result = caller().add(&list, &attach).unwrap();
            caller().del(&list, &attach, Some(&result), false).unwrap();
            result.interfaces[2].mac.clone()
        });
        assert_eq!(macs, ["0a:58:0a:07:00:09", "0a:58:0a:07:00:09"]);
        node.until("the end of the veths", || node.links() == ["cni0"]);
        node.uninstall("net");
    });
}

#[test]
fn with_enabledad_addresses_are_usable_after_add_and_duplicates_are_refused() {
    on_node(|node| {
        let list = |name: &str| {
            let mut conf = bridge_conf();
            conf["enabledad"] = json!(true);
            let list = json!({"cniVersion": "1.0.0", "name": name, "plugins": [conf]});
            coracle_cni_protocol::ConfList::parse(list.to_string().as_bytes()).unwrap()
        };
        let (a, b) = (node.netns("a"), node.netns("b"));
        let (first, second) = (list("net"), list("other"));
        let attach = attachment("a", &a);
        let result = caller().add(&first, &attach).unwrap();
        // Bound at once: a tentative address cannot be (EADDRNOTAVAIL).
        let address = node::first(&result, true);
        node.inside(&a, || std::net::TcpListener::bind((address, 80)).unwrap());
        // Another network with the same addresses on the same bridge.
        let error = caller().add(&second, &attachment("b", &b)).unwrap_err();
        assert!(
            coracle_cni_protocol::chain(&error).contains("is already used by another host"),
            "{error}"
        );
        assert_eq!(node.addresses("other"), Vec::<String>::new());
        assert_eq!(node.links().len(), 2);
        caller().del(&first, &attach, Some(&result), false).unwrap();
        node.until("the end of the veths", || node.links() == ["cni0"]);
        node.uninstall("net");
        node.uninstall("other");
    });
}
