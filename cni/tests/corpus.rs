//! Configurations in the forms that projects document for a node: each is loaded, and what is not installed is named at
//! once.

mod program;

use coracle_cni_protocol::{Attachment, Caller, ConfList, Version, chain};
use program::program;
use std::path::{Path, PathBuf};

/// File, network, version, plugins.
type Known = (&'static str, &'static str, Version, &'static [&'static str]);

const CORPUS: [Known; 15] = [
    (
        "00-multus-shim.conf",
        "multus-cni-network",
        Version::V0_3_1,
        &["multus-shim"],
    ),
    (
        "00-multus.conf",
        "multus-cni-network",
        Version::V0_3_1,
        &["multus"],
    ),
    (
        "05-cilium-chained.conflist",
        "portmap",
        Version::V0_3_1,
        &["cilium-cni", "portmap"],
    ),
    ("05-cilium.conflist", "cilium", Version::V0_3_1, &["cilium-cni"]),
    (
        "10-aws.conflist",
        "aws-cni",
        Version::V0_4_0,
        &["aws-cni", "egress-cni", "portmap"],
    ),
    (
        "10-calico-operator.conflist",
        "k8s-pod-network",
        Version::V1_0_0,
        &["calico", "bandwidth", "portmap"],
    ),
    (
        "10-calico.conflist",
        "k8s-pod-network",
        Version::V0_3_1,
        &["calico", "portmap", "bandwidth"],
    ),
    (
        "10-flannel-k3s.conflist",
        "cbr0",
        Version::V1_0_0,
        &["flannel", "portmap", "bandwidth"],
    ),
    (
        "10-flannel-kubeadm.conflist",
        "cbr0",
        Version::V0_3_1,
        &["flannel", "portmap"],
    ),
    (
        "10-kindnet.conflist",
        "kindnet",
        Version::V0_3_1,
        &["ptp", "portmap"],
    ),
    (
        "10-kuberouter.conflist",
        "mynet",
        Version::V0_3_0,
        &["bridge", "portmap"],
    ),
    (
        "10-ovn-kubernetes.conf",
        "ovn-kubernetes",
        Version::V1_0_0,
        &["ovn-k8s-cni-overlay"],
    ),
    ("10-weave.conf", "weave", Version::V0_1_0, &["weave-net"]),
    ("100-crio-bridge.conflist", "crio", Version::V1_0_0, &["bridge"]),
    (
        "87-podman.conflist",
        "podman",
        Version::V0_4_0,
        &["bridge", "portmap", "firewall", "tuning"],
    ),
];

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conflists")
}

fn kinds(list: &ConfList) -> Vec<&str> {
    list.plugins().iter().filter_map(|plugin| plugin.kind()).collect()
}

#[test]
fn every_file_of_the_corpus_is_known() {
    let mut files: Vec<_> = dir()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, CORPUS.map(|(file, ..)| file));
}

#[test]
fn each_is_loaded_and_goes_through_a_record() {
    for (file, name, version, plugins) in CORPUS {
        let list = ConfList::load_file(&dir().join(file)).unwrap();
        assert_eq!((list.name(), list.version()), (name, version), "{file}");
        assert_eq!(kinds(&list), plugins, "{file}");
        let record = list.to_json().to_string();
        assert_eq!(ConfList::parse(record.as_bytes()).unwrap(), list, "{file}");
    }
}

/// Alone in its directory, as a node has it.
#[test]
fn each_is_found_as_the_network_of_a_node() {
    for (file, name, ..) in CORPUS {
        let node = tempfile::tempdir().unwrap();
        std::fs::copy(dir().join(file), node.path().join(file)).unwrap();
        std::fs::write(node.path().join("calico-kubeconfig"), "apiVersion: v1").unwrap();
        assert_eq!(ConfList::load_dir(node.path()).unwrap().name(), name, "{file}");
    }
}

#[test]
fn a_plugin_that_is_not_installed_is_named_at_once() {
    let attachment = Attachment {
        container_id: "c1".to_owned(),
        ifname: "eth0".to_owned(),
        ..Attachment::default()
    };
    for (file, _, _, plugins) in CORPUS {
        let list = ConfList::load_file(&dir().join(file)).unwrap();
        let bin = tempfile::tempdir().unwrap();
        let caller = Caller::new(vec![bin.path().to_owned()]);
        for plugin in plugins {
            let want = format!(
                "failed to find plugin {plugin:?} in path [{}]",
                bin.path().display()
            );
            assert_eq!(chain(&caller.status(&list).unwrap_err()), want, "{file}");
            assert_eq!(
                chain(&caller.add(&list, &attachment).unwrap_err()),
                want,
                "{file}"
            );
            // Any program: it gives the result of ADD and succeeds.
            let answer = r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"0.3.1"}'
true
"#;
            program(&bin.path().join(plugin), answer);
        }
        caller.status(&list).unwrap();
        caller.add(&list, &attachment).unwrap();
        let skipped = caller.del(&list, &attachment, None, false).unwrap();
        assert!(skipped.is_empty(), "{file}: {skipped:?}");
    }
}
