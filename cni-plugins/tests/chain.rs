//! The usual chain: bridge, portmap, firewall, tuning.

mod node;

use node::{attachment, bridge_conf, caller, list_of, on_node, serve};
use serde_json::{Value, json};

#[test]
fn the_whole_chain_attaches_checks_and_detaches() {
    on_node(|node| {
        let netns = node.netns("a");
        let list = list_of(
            "1.1.0",
            json!([
                bridge_conf(),
                {"type": "portmap", "capabilities": {"portMappings": true}},
                {"type": "firewall", "backend": "", "ingressPolicy": "same-bridge"},
                {"type": "tuning", "sysctl": {"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_filter": "1"},
                 "mtu": 1300, "mac": "02:00:00:00:00:77", "promisc": true, "allmulti": true, "txQLen": 55, "dataDir": "/run/tuning"},
            ]),
        );
        let caller = caller();
        caller.status(&list).unwrap();
        let attach = node::with_ports(
            attachment("a", &netns),
            &json!([{"hostPort": 8080, "containerPort": 80}]),
        );
        let result = caller.add(&list, &attach).unwrap();
        assert_eq!(result.interfaces[2].mac, "02:00:00:00:00:77");
        assert_eq!(result.interfaces[2].mtu, Some(1300));
        node.check(&list, &attach, &result);
        let inside = |path: &'static str| {
            node.inside(&netns, move || {
                let output = std::process::Command::new("cat")
                    .arg(format!("/proc/sys/net/{path}"))
                    .output()
                    .unwrap();
                String::from_utf8(output.stdout).unwrap().trim().to_owned()
            })
        };
        assert_eq!(inside("core/somaxconn"), "500");
        assert_eq!(inside("ipv4/conf/eth0/arp_filter"), "1");
        serve(node, &netns, 80);
        assert!(node::ask("127.0.0.1", 8080).is_ok());
        assert!(std::path::Path::new("/run/tuning/a_eth0.json").exists());
        caller.del(&list, &attach, Some(&result), false).unwrap();
        assert!(!std::path::Path::new("/run/tuning/a_eth0.json").exists());
        node.until("the end of the veth", || node.links() == ["cni0"]);
        assert!(!node.rules().contains("net/a"), "{}", node.rules());
        node.uninstall("net");
    });
}

/// Before 0.3.0 a result has no interfaces: what a later plugin of the chain needs is known from the addresses.
#[test]
fn the_chain_works_in_every_version() {
    on_node(|node| {
        for version in ["", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let netns = node.netns(&format!("v{version}"));
            let list = list_of(
                version,
                json!([
                    bridge_conf(),
                    {"type": "portmap", "capabilities": {"portMappings": true}},
                    {"type": "firewall"},
                    {"type": "tuning", "mtu": 1300, "dataDir": "/run/tuning"},
                ]),
            );
            let ports = json!([{"hostPort": 8080, "containerPort": 80}]);
            let attach = node::with_ports(attachment("a", &netns), &ports);
            let result = caller().add(&list, &attach).unwrap();
            assert_eq!(result.ips.len(), 2, "{version}");
            serve(node, &netns, 80);
            assert!(node::ask("127.0.0.1", 8080).is_ok(), "{version}");
            caller().del(&list, &attach, Some(&result), false).unwrap();
            assert_eq!(node.links(), ["cni0"], "{version}");
            assert!(!node.rules().contains("net/a"), "{version}: {}", node.rules());
            assert_eq!(node.addresses("net"), Vec::<String>::new(), "{version}");
        }
        node.uninstall("net");
    });
}

#[test]
fn closed_bridges_do_not_reach_each_other() {
    on_node(|node| {
        let caller = caller();
        let lists: Vec<_> = [
            ("one", "10.1.0.0/24", "same-bridge"),
            ("two", "10.2.0.0/24", "isolated"),
            ("open", "10.3.0.0/24", "open"),
        ]
        .iter()
        .map(|(name, subnet, policy)| {
            let bridge = json!({"type": "bridge", "bridge": name, "isDefaultGateway": true,
                    "ipam": {"type": "host-local", "dataDir": "/run/ipam", "subnet": subnet}});
            let list = json!({"cniVersion": "1.0.0", "name": name,
                    "plugins": [bridge, {"type": "firewall", "ingressPolicy": policy}]});
            coracle_cni_protocol::ConfList::parse(list.to_string().as_bytes()).unwrap()
        })
        .collect();
        let mut pods = Vec::new();
        for (list, name) in lists.iter().flat_map(|list| [(list, "a"), (list, "b")]) {
            let id = format!("{}{name}", list.name());
            let netns = node.netns(&id);
            let result = caller.add(list, &attachment(&id, &netns)).unwrap();
            node.check(list, &attachment(&id, &netns), &result);
            serve(node, &netns, 80);
            pods.push((id, netns, node::first(&result, false).to_string(), list, result));
        }
        // From, to, reached.
        let cases = [
            (0, 1, true),
            (0, 2, false),
            (2, 0, false),
            (2, 3, false),
            (0, 4, true),
            (4, 0, true),
            (4, 5, true),
            (2, 4, true),
        ];
        std::thread::scope(|scope| {
            for (from, to, reached) in cases {
                let pods = &pods;
                scope.spawn(move || {
                    let as_wanted = node.inside(&pods[from].1, || match reached {
                        true => node::ask(&pods[to].2, 80).is_ok(),
                        false => node::closed(&pods[to].2, 80),
                    });
                    assert!(as_wanted, "{} to {}", pods[from].0, pods[to].0);
                });
            }
        });
        for (id, netns, _, list, result) in &pods {
            caller
                .del(list, &attachment(id, netns), Some(result), false)
                .unwrap();
        }
        node.until("the end of the veths", || node.links().len() == 3);
        lists.iter().for_each(|list| node.uninstall(list.name()));
    });
}

#[test]
fn loopback_is_set_up_and_hands_a_result_on() {
    on_node(|node| {
        let netns = node.netns("a");
        let path = netns.to_str().unwrap();
        let state = |up: bool| {
            node.inside(&netns, || {
                let mut socket =
                    coracle_linux::netlink::Socket::open(coracle_linux::netlink::Protocol::Route).unwrap();
                let which = coracle_linux::netlink::route::link::Which::Name("lo");
                assert_eq!(
                    coracle_linux::netlink::route::link::find(&mut socket, which)
                        .unwrap()
                        .unwrap()
                        .up,
                    up
                );
            });
        };
        let env = |command| {
            [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "a"),
                ("CNI_NETNS", path),
                ("CNI_IFNAME", "lo"),
                // Loopback has no arguments, so that these are not its concern.
                ("CNI_ARGS", "none"),
            ]
        };
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let conf = node::single(version, json!({"type": "loopback"}));
            let result = node.ok("loopback", &env("ADD"), &conf);
            assert_eq!(result["interfaces"][0]["name"], "lo");
            assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
            state(true);
            if version != "0.3.1" {
                node.ok("loopback", &env("CHECK"), &conf);
            }
            assert_eq!(node.ok("loopback", &env("DEL"), &conf), Value::Null);
            state(false);
        }
        node.ok(
            "loopback",
            &[
                ("CNI_COMMAND", "DEL"),
                ("CNI_CONTAINERID", "a"),
                ("CNI_NETNS", "/gone"),
            ],
            &node::single("1.0.0", json!({})),
        );
    });
}
