//! host-local as a program of its own.

mod node;

use node::{Node, on_node, single};
use serde_json::{Value, json};

fn conf(ipam: Value) -> Value {
    let mut conf = json!({"type": "x", "ipam": {"type": "host-local", "dataDir": "/run/ipam"}});
    conf["ipam"]
        .as_object_mut()
        .unwrap()
        .extend(ipam.as_object().unwrap().clone());
    single("1.1.0", conf)
}

fn call(node: &Node, command: &str, id: &str, conf: &Value) -> Value {
    node.ok(
        "host-local",
        &[
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", "/any"),
        ],
        conf,
    )
}

fn address(result: &Value, at: usize) -> &str {
    result["ips"][at]["address"].as_str().unwrap()
}

fn done() {
    std::fs::remove_dir_all("/run/ipam").unwrap();
}

#[test]
fn addresses_go_round_before_one_is_given_again() {
    on_node(|node| {
        let conf = conf(json!({"subnet": "10.0.0.0/29", "routes": [{"dst": "0.0.0.0/0"}]}));
        let first = call(node, "ADD", "a", &conf);
        assert_eq!(
            first["ips"],
            json!([{"address": "10.0.0.2/29", "gateway": "10.0.0.1"}])
        );
        assert_eq!(first["routes"], json!([{"dst": "0.0.0.0/0"}]));
        assert_eq!(first.get("interfaces"), None);
        assert_eq!(
            std::fs::read_to_string("/run/ipam/net/10.0.0.2").unwrap(),
            "a\r\neth0"
        );
        assert_eq!(
            std::fs::read_to_string("/run/ipam/net/last_reserved_ip.0").unwrap(),
            "10.0.0.2"
        );
        call(node, "DEL", "a", &conf);
        let given: Vec<_> = ["b", "c", "d", "e", "f"]
            .map(|id| address(&call(node, "ADD", id, &conf), 0).to_owned())
            .into();
        assert_eq!(
            given,
            [
                "10.0.0.3/29",
                "10.0.0.4/29",
                "10.0.0.5/29",
                "10.0.0.6/29",
                "10.0.0.2/29"
            ]
        );
        let env = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "g"),
            ("CNI_NETNS", "/any"),
        ];
        let error = node.fails("host-local", &env, &conf);
        assert!(
            error["msg"].as_str().unwrap().contains(
                "failed to allocate for range 0: no IP addresses available in range set: 10.0.0.1-10.0.0.6"
            ),
            "{error}"
        );
        let error = node.fails("host-local", &[("CNI_COMMAND", "STATUS")], &conf);
        assert_eq!(error["code"], 50, "{error}");
        call(node, "DEL", "d", &conf);
        node.ok("host-local", &[("CNI_COMMAND", "STATUS")], &conf);
        assert_eq!(address(&call(node, "ADD", "g", &conf), 0), "10.0.0.5/29");
        done();
    });
}

#[test]
fn a_wanted_address_is_given_once() {
    on_node(|node| {
        let mut conf = conf(json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
        conf["runtimeConfig"] = json!({"ips": ["10.0.0.9/24", "fd00::9"]});
        let result = call(node, "ADD", "a", &conf);
        assert_eq!(
            (address(&result, 0), address(&result, 1)),
            ("10.0.0.9/24", "fd00::9/64")
        );
        let env = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "b"),
            ("CNI_NETNS", "/any"),
        ];
        let error = node.fails("host-local", &env, &conf);
        assert!(error["msg"].as_str().unwrap().contains("10.0.0.9"), "{error}");
        let mut elsewhere = conf.clone();
        elsewhere["runtimeConfig"]["ips"] = json!(["10.1.2.77", "fd01::7"]);
        let error = node.fails("host-local", &env, &elsewhere);
        assert_eq!(
            error["msg"],
            "failed to allocate all requested IPs: 10.1.2.77 fd01::7"
        );
        assert_eq!(node.addresses("net"), ["10.0.0.9", "fd00::9"]);
        let again = node.fails(
            "host-local",
            &[
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", "a"),
                ("CNI_NETNS", "/any"),
            ],
            &conf,
        );
        assert!(again["msg"].as_str().unwrap().contains("duplicate"), "{again}");
        call(node, "CHECK", "a", &conf);
        let error = node.fails(
            "host-local",
            &[
                ("CNI_COMMAND", "CHECK"),
                ("CNI_CONTAINERID", "b"),
                ("CNI_NETNS", "/any"),
            ],
            &conf,
        );
        assert_eq!(error["code"], 3, "{error}");
        done();
    });
}

#[test]
fn unknown_arguments_are_errors_unless_they_are_to_be_ignored() {
    on_node(|node| {
        let conf = conf(json!({"subnet": "10.0.0.0/24"}));
        let with = |args| {
            [
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", "a"),
                ("CNI_NETNS", "/any"),
                ("CNI_ARGS", args),
            ]
        };
        for (args, want) in [
            ("FOO=bar", "unknown args [\"FOO=bar\"]"),
            ("none", "invalid pair \"none\""),
            ("IP=none", "\"none\" is not an IP address"),
        ] {
            let error = node.fails("host-local", &with(args), &conf);
            assert!(error["msg"].as_str().unwrap().contains(want), "{args}: {error}");
        }
        // DEL uses none of them.
        let del = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "a"),
            ("CNI_ARGS", "none"),
        ];
        node.ok("host-local", &del, &conf);
        let result = node.ok(
            "host-local",
            &with("FOO=bar;IP=10.0.0.7;IgnoreUnknown=true"),
            &conf,
        );
        assert_eq!(address(&result, 0), "10.0.0.7/24");
        done();
    });
}

#[test]
fn gc_frees_exactly_what_is_stale() {
    on_node(|node| {
        let mut conf = conf(json!({"subnet": "10.0.0.0/24"}));
        for id in ["a", "b", "c"] {
            call(node, "ADD", id, &conf);
        }
        std::fs::write("/run/ipam/net/10.0.0.200", "").unwrap();
        conf["cni.dev/valid-attachments"] = json!([{"containerID": "b", "ifname": "eth0"}]);
        node.ok("host-local", &[("CNI_COMMAND", "GC")], &conf);
        assert_eq!(node.addresses("net"), ["10.0.0.3"]);
        done();
    });
}

/// Upstream's program must be able to go on with our directory, and ours with its.
#[test]
fn upstreams_plugin_and_ours_share_a_directory() {
    let upstream = "/usr/lib/cni/host-local";
    if !std::path::Path::new(upstream).exists() {
        eprintln!("skipped: {upstream} (containernetworking-plugins) is not installed");
        return;
    }
    on_node(|node| {
        let mut conf = conf(json!({"subnet": "10.0.0.0/24"}));
        // Debian's plugins do not know 1.1.0.
        conf["cniVersion"] = json!("1.0.0");
        std::os::unix::fs::symlink(upstream, "/run/bin/upstream").unwrap();
        let theirs = |command: &str, id: &str| {
            node.ok(
                "upstream",
                &[
                    ("CNI_COMMAND", command),
                    ("CNI_CONTAINERID", id),
                    ("CNI_NETNS", "/any"),
                ],
                &conf,
            )
        };
        assert_eq!(address(&theirs("ADD", "a"), 0), "10.0.0.2/24");
        assert_eq!(address(&call(node, "ADD", "b", &conf), 0), "10.0.0.3/24");
        theirs("DEL", "b");
        call(node, "DEL", "a", &conf);
        assert_eq!(node.addresses("net"), Vec::<String>::new());
        done();
    });
}
