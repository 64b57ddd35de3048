//! Every wrong configuration gets an error that names what is wrong, with the right code, and leaves nothing.

mod node;

use node::{bridge_conf, on_node, single};
use serde_json::{Value, json};

fn merged(mut base: Value, change: &Value) -> Value {
    for (key, value) in change.as_object().unwrap() {
        match (base.get_mut(key), value) {
            (Some(Value::Object(inner)), Value::Object(more)) => inner.extend(more.clone()),
            _ => base[key] = value.clone(),
        }
    }
    base
}

#[test]
fn each_wrong_key_is_named() {
    on_node(|node| {
        let netns = node.netns("a");
        let host_local = json!({"type": "x", "ipam": {"type": "host-local", "dataDir": "/run/ipam", "subnet": "10.7.0.0/24"}});
        let prev = json!({"interfaces": [{"name": "eth0", "sandbox": netns.to_str().unwrap()}], "ips": [{"address": "10.7.0.2/24", "interface": 0}]});
        let chained = json!({"type": "x", "prevResult": prev});
        let ports = |mapping: Value| json!({"runtimeConfig": {"portMappings": [mapping]}});
        let cases: Vec<(&str, &Value, Value, u32, &str)> = vec![
            ("bridge", &host_local, json!({"vlan": 5}), 2, "vlan"),
            (
                "bridge",
                &host_local,
                json!({"vlanTrunk": [{"id": 5}]}),
                2,
                "vlanTrunk",
            ),
            (
                "bridge",
                &host_local,
                json!({"macspoofchk": true}),
                2,
                "macspoofchk",
            ),
            (
                "bridge",
                &host_local,
                json!({"disableContainerInterface": true}),
                2,
                "disableContainerInterface",
            ),
            (
                "bridge",
                &host_local,
                json!({"ipMasqBackend": "pf"}),
                7,
                "ipMasqBackend",
            ),
            ("bridge", &host_local, json!({"mtu": "big"}), 6, "mtu"),
            ("bridge", &host_local, json!({"mtu": -1}), 6, "-1"),
            ("bridge", &host_local, json!({"mtu": 10}), 7, "mtu"),
            (
                "bridge",
                &host_local,
                json!({"mtu": 99_999_999_999_u64}),
                6,
                "99999999999",
            ),
            (
                "bridge",
                &host_local,
                json!({"hairpinMode": true, "promiscMode": true}),
                7,
                "promiscMode",
            ),
            ("bridge", &host_local, json!({"isGateway": "yes"}), 6, "isGateway"),
            ("bridge", &host_local, json!({"bridge": "a/b"}), 7, "bridge"),
            (
                "bridge",
                &host_local,
                json!({"bridge": "lo"}),
                999,
                "\"lo\" already exists but is not a bridge",
            ),
            (
                "bridge",
                &host_local,
                json!({"args": {"cni": {"mac": "nonsense"}}}),
                7,
                "args.cni.mac",
            ),
            (
                "bridge",
                &host_local,
                json!({"runtimeConfig": {"mac": "01:00:00:00:00:00"}}),
                7,
                "runtimeConfig.mac",
            ),
            (
                "bridge",
                &host_local,
                json!({"prevResult": {"ips": [{"address": "x"}]}}),
                6,
                "result",
            ),
            (
                "bridge",
                &host_local,
                json!({"ipam": {"type": "unheard-of"}}),
                999,
                "unheard-of",
            ),
            (
                "bridge",
                &host_local,
                json!({"ipam": {"type": "../../bin/sh"}}),
                999,
                "bin/sh",
            ),
            (
                "bridge",
                &host_local,
                json!({"ipam": {"subnet": "10.7.0.9/24"}}),
                7,
                "host bits",
            ),
            (
                "host-local",
                &host_local,
                json!({"ipam": {"subnet": "10.7.0.0/31"}}),
                7,
                "too small",
            ),
            (
                "host-local",
                &host_local,
                json!({"ipam": {"subnet": "nonsense"}}),
                7,
                "subnet \"nonsense\"",
            ),
            (
                "host-local",
                &host_local,
                json!({"ipam": {"ranges": [[]]}}),
                7,
                "empty",
            ),
            (
                "host-local",
                &host_local,
                json!({"ipam": {"ranges": [[{"subnet": "10.7.0.0/25"}]]}}),
                7,
                "overlaps",
            ),
            (
                "host-local",
                &host_local,
                json!({"ipam": {"rangeEnd": "10.9.0.0"}}),
                7,
                "rangeEnd",
            ),
            (
                "host-local",
                &host_local,
                json!({"ipam": {"dataDir": "relative"}}),
                7,
                "ipam.dataDir",
            ),
            (
                "host-local",
                &host_local,
                json!({"ipam": {"resolvConf": "/run/nothing"}}),
                5,
                "ipam.resolvConf",
            ),
            (
                "host-local",
                &host_local,
                json!({"ipam": {"routes": [{"dst": "x"}]}}),
                6,
                "ipam",
            ),
            (
                "host-local",
                &host_local,
                json!({"runtimeConfig": {"ips": ["x"]}}),
                7,
                "runtimeConfig.ips",
            ),
            (
                "host-local",
                &host_local,
                json!({"runtimeConfig": {"ips": ["10.7.0.1"]}}),
                999,
                "gateway",
            ),
            (
                "host-local",
                &host_local,
                json!({"runtimeConfig": {"ips": ["10.8.0.1"]}}),
                999,
                "failed to allocate all requested IPs: 10.8.0.1",
            ),
            ("host-local", &host_local, json!({"ipam": 7}), 7, "ipam"),
            ("host-local", &host_local, json!({"ipam": null}), 7, "ipam"),
            ("portmap", &host_local, json!({}), 7, "prevResult"),
            (
                "portmap",
                &chained,
                json!({"conditionsV4": ["-s", "1.2.3.4"]}),
                2,
                "conditionsV4",
            ),
            (
                "portmap",
                &chained,
                json!({"conditionsV6": ["a"]}),
                2,
                "conditionsV6",
            ),
            (
                "portmap",
                &chained,
                json!({"externalSetMarkChain": "KUBE-MARK-MASQ"}),
                2,
                "externalSetMarkChain",
            ),
            ("portmap", &chained, json!({"backend": "pf"}), 7, "backend"),
            (
                "portmap",
                &chained,
                ports(json!({"hostPort": 0, "containerPort": 80})),
                7,
                "portMappings[0].hostPort",
            ),
            (
                "portmap",
                &chained,
                ports(json!({"hostPort": 65536, "containerPort": 80})),
                7,
                "portMappings[0].hostPort",
            ),
            (
                "portmap",
                &chained,
                ports(json!({"hostPort": 80, "containerPort": -1})),
                7,
                "portMappings[0].containerPort",
            ),
            (
                "portmap",
                &chained,
                ports(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"})),
                7,
                "portMappings[0].protocol",
            ),
            (
                "portmap",
                &chained,
                ports(json!({"hostPort": 80, "containerPort": 80, "hostIP": "x"})),
                7,
                "portMappings[0].hostIP",
            ),
            (
                "portmap",
                &chained,
                json!({"runtimeConfig": {"portMappings": [
                {"hostPort": 80, "containerPort": 80}, {"hostPort": 80, "containerPort": 81}]}}),
                7,
                "mapped twice",
            ),
            ("portmap", &chained, json!({"markMasqBit": 32}), 7, "markMasqBit"),
            (
                "portmap",
                &chained,
                json!({"runtimeConfig": {"portMappings": 7}}),
                6,
                "portMappings",
            ),
            ("firewall", &host_local, json!({}), 7, "prevResult"),
            (
                "firewall",
                &chained,
                json!({"backend": "firewalld"}),
                2,
                "backend",
            ),
            ("firewall", &chained, json!({"backend": "pf"}), 7, "backend"),
            (
                "firewall",
                &chained,
                json!({"iptablesAdminChainName": "MINE"}),
                2,
                "iptablesAdminChainName",
            ),
            (
                "firewall",
                &chained,
                json!({"ingressPolicy": "shut"}),
                7,
                "ingressPolicy",
            ),
            (
                "firewall",
                &chained,
                json!({"ingressPolicy": "isolated"}),
                7,
                "bridge",
            ),
            ("tuning", &host_local, json!({}), 7, "prevResult"),
            (
                "tuning",
                &chained,
                json!({"sysctl": {"kernel.msgmax": "1"}}),
                7,
                "kernel.msgmax",
            ),
            (
                "tuning",
                &chained,
                json!({"sysctl": {"net/../kernel/msgmax": "1"}}),
                7,
                "msgmax",
            ),
            (
                "tuning",
                &chained,
                json!({"sysctl": {"net.ipv4.nothing": "1"}}),
                5,
                "net/ipv4/nothing",
            ),
            ("tuning", &chained, json!({"mac": "x"}), 7, "mac"),
            ("tuning", &chained, json!({"mtu": 1}), 999, "eth0"),
            ("tuning", &chained, json!({"dataDir": "relative"}), 7, "dataDir"),
            (
                "loopback",
                &host_local,
                json!({"prevResult": {"cniVersion": "7"}}),
                6,
                "version",
            ),
        ];
        for (plugin, base, change, code, want) in cases {
            let conf = single("1.0.0", merged(base.clone(), &change));
            let env = [
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", "a"),
                ("CNI_NETNS", netns.to_str().unwrap()),
            ];
            let error = node.fails(plugin, &env, &conf);
            assert_eq!(error["code"], code, "{plugin} {change}: {error}");
            assert!(
                error["msg"].as_str().unwrap().contains(want),
                "{plugin} {change}: {error}"
            );
            assert_eq!(error["cniVersion"], "1.0.0");
            assert!(node.addresses("net").is_empty(), "{plugin} {change}");
            assert!(
                node.links().iter().all(|link| link == "cni0"),
                "{plugin} {change}"
            );
            assert!(!node.rules().contains("elements"), "{plugin} {change}");
            // What was refused can be taken back: callers stop at a DEL that fails, or try it for ever.
            let del = [
                ("CNI_COMMAND", "DEL"),
                ("CNI_CONTAINERID", "a"),
                ("CNI_NETNS", ""),
            ];
            assert_eq!(node.ok(plugin, &del, &conf), Value::Null, "{change}");
        }
        node.uninstall("net");
        // host-local by itself keeps no record of its directory: it changes nothing else on the host.
        std::fs::remove_dir_all("/run/ipam").unwrap();
    });
}

/// Everything is read before anything is touched, so that a key that is wrong leaves nothing, wherever it stands.
#[test]
fn a_wrong_key_is_found_before_anything_is_made() {
    on_node(|node| {
        let netns = node.netns("a");
        let host_local = json!({"type": "x", "ipMasq": true, "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": "/run/ipam", "subnet": "10.7.0.0/24"}});
        let cases = [
            json!({"dns": 7}),
            json!({"dns": {"nameservers": "x"}}),
            json!({"prevResult": {"ips": [{"address": "x"}]}}),
            json!({"runtimeConfig": {"mac": "x"}}),
            json!({"runtimeConfig": {"ips": ["x"]}}),
            json!({"ipMasqBackend": "pf"}),
            json!({"ipam": {"routes": [{"dst": "x"}]}}),
            json!({"ipam": {"resolvConf": "/run/nothing"}}),
            json!({"ipam": {"subnet": "10.7.0.9/24"}}),
            json!({"ipam": {"type": "unheard-of"}}),
        ];
        let env = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "a"),
            ("CNI_NETNS", netns.to_str().unwrap()),
        ];
        for change in cases {
            node.fails(
                "bridge",
                &env,
                &single("1.0.0", merged(host_local.clone(), &change)),
            );
            assert_eq!(node.links(), Vec::<String>::new(), "{change}");
            for made in ["/run/coracle-cni", "/run/ipam"] {
                assert!(!std::path::Path::new(made).exists(), "{change}: {made}");
            }
        }
        let settings = || node.inside(&netns, || node::setting("ipv4/conf/lo/arp_filter"));
        let before = settings();
        let sysctl = json!({"sysctl": {"net.ipv4.conf.lo.arp_filter": "1"}});
        for change in [
            json!({"prevResult": 7}),
            json!({"prevResult": null}),
            json!({"prevResult": {}, "mtu": "x"}),
        ] {
            node.fails("tuning", &env, &single("1.0.0", merged(sysctl.clone(), &change)));
            assert_eq!(settings(), before, "{change}");
        }
        let up = || {
            node.inside(&netns, || {
                std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap()
            })
        };
        let down = [&env[1..], &[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "lo")]].concat();
        node.ok("loopback", &down, &single("1.0.0", json!({})));
        let before = up();
        node.fails("loopback", &env, &single("1.0.0", json!({"prevResult": 7})));
        assert_eq!(up(), before, "the loopback interface was set up");
    });
}

#[test]
fn namespaces_that_are_none_are_refused() {
    on_node(|node| {
        std::fs::write("/run/file", "").unwrap();
        for (netns, code) in [
            ("/run/nothing", 8),
            ("/run/file", 8),
            ("/proc/self/ns/mnt", 8),
            ("/proc/self/ns/net", 8),
        ] {
            for plugin in ["bridge", "loopback"] {
                let env = [
                    ("CNI_COMMAND", "ADD"),
                    ("CNI_CONTAINERID", "a"),
                    ("CNI_NETNS", netns),
                ];
                let error = node.fails(plugin, &env, &single("1.0.0", bridge_conf()));
                assert_eq!(error["code"], code, "{plugin} {netns}: {error}");
            }
        }
        assert_eq!(node.links(), Vec::<String>::new());
    });
}
