//! `coraclectl doctor` on a node with a daemon, and when that is gone.

use coracle_integration::daemon::Daemon;
use coracle_integration::node::{self, Node};
use coracle_integration::programs;
use serde_json::Value;

#[test]
fn a_node_is_looked_at_with_its_daemon_and_without() {
    node::run("doctor", |node| {
        let daemon = Daemon::start(node);
        let (code, findings) = doctor(node, &daemon);
        for (area, what) in [
            ("daemon", "answers"),
            ("daemon", "RuntimeReady"),
            ("daemon", "NetworkReady"),
            ("cni", "configuration"),
            ("cni", "plugin bridge"),
            ("kernel", "overlayfs"),
            ("cgroups", "layout"),
        ] {
            assert_eq!(state(&findings, area, what), "good", "{findings:?}");
        }
        assert_eq!(code, 0, "{findings:?}");
        // Where it says its files are, not where they usually are.
        let root = daemon.root().display().to_string();
        assert!(
            findings
                .iter()
                .any(|finding| finding["says"].as_str().unwrap().contains(&root)),
            "{findings:?}"
        );

        daemon.kill9();
        let (code, findings) = doctor(node, &daemon);
        assert_eq!(code, 1);
        assert_eq!(state(&findings, "daemon", "answers"), "broken");
        for finding in &findings {
            assert!(
                finding["state"] == "good" || finding["mend"].is_string(),
                "{finding}"
            );
        }
        let lines = node
            .command(programs::ours("coraclectl"))
            .args(["--address", &daemon.address(), "doctor"])
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&lines.stdout).contains("mend: start coracled"));
        daemon.restart();
        daemon.uninstall_network();
    });
}

fn doctor(node: &Node, daemon: &Daemon<'_>) -> (i32, Vec<Value>) {
    let mut command = node.command(programs::ours("coraclectl"));
    let output = command
        .args(["--address", &daemon.address(), "doctor", "--json"])
        .output()
        .unwrap();
    let findings = serde_json::from_slice(&output.stdout);
    (
        output.status.code().unwrap(),
        findings.unwrap_or_else(|error| panic!("{error}: {output:?}")),
    )
}

fn state<'a>(findings: &'a [Value], area: &str, what: &str) -> &'a str {
    let found = findings
        .iter()
        .find(|finding| finding["area"] == area && finding["what"] == what);
    found.unwrap_or_else(|| panic!("nothing is said of {area} {what}"))["state"]
        .as_str()
        .unwrap()
}
