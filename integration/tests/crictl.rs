//! The real crictl drives a pod whose image comes from a real registry, from pull to remove.

use std::fs;
use std::path::PathBuf;

use coracle_integration::crictl::Crictl;
use coracle_integration::daemon::{self, Daemon};
use coracle_integration::leak::Snapshot;
use coracle_integration::node::{self, Node};
use coracle_integration::registry::Registry;
use coracle_integration::wait;
use serde_json::{Value, json};

#[test]
fn crictl_runs_a_pod_from_a_registry() {
    node::run("crictl", |node| {
        let registry = Registry::start(node);
        let reference = registry.push(&daemon::payload_archive(node), "team/payload:1");
        let daemon = Daemon::start(node);
        let crictl = Crictl::new(node, &daemon.socket());
        assert!(crictl.run(&["version"]).contains("RuntimeName:  coracle"));

        pulled_image_is_listed(&crictl, &reference);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let pod = crictl.run(&[
            "runp",
            &write(
                node,
                "pod.json",
                &pod(&node.folder("logs").join("crictl-pod").display().to_string()),
            ),
        ]);
        let server = container(node, &crictl, &pod, "server", &reference, &["serve", "8080"]);
        let fetch = ["fetch", "http://localhost:8080/", "--every", "0.1"];
        let sidecar = container(node, &crictl, &pod, "sidecar", &reference, &fetch);
        both_run(&crictl, &pod);

        wait::until_true(wait::SOON, "the sidecar reaches the server on localhost", || {
            crictl.run(&["logs", &sidecar]).contains("hello from crictl-pod")
        });
        assert_eq!(
            crictl.run(&["exec", "-s", &server, "/payload", "hostname"]),
            "crictl-pod"
        );
        exit_code_of_exec_comes_back(&crictl, &server);
        let address = crictl.json(&["inspectp", &pod])["status"]["network"]["ip"]
            .as_str()
            .unwrap()
            .to_owned();
        let served = node.output(&[
            "curl",
            "-sS",
            "--max-time",
            "60",
            &format!("http://{address}:8080/"),
        ]);
        assert!(served.contains("hello from crictl-pod"), "{served}");

        statistics_are_there(&crictl, &server, &pod);
        crictl.does(&["stop", "--timeout", "1", &sidecar]);
        assert_eq!(
            crictl.json(&["inspect", &sidecar])["status"]["state"],
            "CONTAINER_EXITED"
        );
        crictl.does(&["rm", &sidecar]);
        crictl.does(&["stopp", &pod]);
        assert_eq!(
            crictl.json(&["inspectp", &pod])["status"]["state"],
            "SANDBOX_NOTREADY"
        );
        crictl.does(&["rmp", &pod]);
        assert_eq!(
            crictl.json(&["ps", "-a"])["containers"].as_array().map(Vec::len),
            Some(0)
        );
        daemon.uninstall_network();
        before.assert_nothing_left(node);

        crictl.does(&["rmi", &reference]);
        assert_eq!(
            crictl.json(&["images"])["images"].as_array().map(Vec::len),
            Some(0)
        );
    });
}

#[test]
fn a_name_on_any_registry_is_served_by_a_mirror() {
    node::run("mirror", |node| {
        let registry = Registry::start(node);
        let _ = registry.push(&daemon::payload_archive(node), "library/busy:2");
        let daemon = Daemon::start(node);
        let crictl = Crictl::new(node, &daemon.socket());
        for host in ["registry.example", "_default"] {
            registry.mirror(&daemon.registry_configuration(), host);
        }
        let before = Snapshot::take_with_daemon(node, &daemon);
        crictl.does(&["pull", "registry.example/library/busy:2"]);
        crictl.does(&["pull", "busy:2"]);
        let images = crictl.json(&["images"]);
        let names = images["images"][0]["repoTags"].to_string();
        assert!(names.contains("registry.example/library/busy:2"), "{images}");
        assert!(names.contains("docker.io/library/busy:2"), "{images}");

        let refused = crictl
            .command(&["pull", "registry.example/library/absent:2"])
            .output()
            .unwrap();
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            said.contains("registry.example/library/absent:2"),
            "the error names the image: {said}"
        );
        before.assert_nothing_left(node);
    });
}

fn pulled_image_is_listed(crictl: &Crictl<'_>, reference: &str) {
    crictl.does(&["pull", reference]);
    let images = crictl.json(&["images"]);
    assert_eq!(images["images"][0]["repoTags"][0], reference, "{images}");
    assert!(
        images["images"][0]["repoDigests"][0]
            .as_str()
            .unwrap()
            .contains("@sha256:"),
        "{images}"
    );
    let again = crictl.run(&["pull", reference]);
    assert!(!again.is_empty(), "a second pull answers too");
}

fn container(
    node: &Node,
    crictl: &Crictl<'_>,
    pod: &str,
    name: &str,
    image: &str,
    arguments: &[&str],
) -> String {
    let config = json!({
        "metadata": { "name": name },
        "image": { "image": image },
        "args": arguments,
        "log_path": format!("{name}.log"),
        "linux": {},
    });
    let config = write(node, &format!("{name}.json"), &config);
    let pod_config = node.scratch().join("pod.json").display().to_string();
    let id = crictl.run(&["create", "--no-pull", pod, &config, &pod_config]);
    crictl.does(&["start", &id]);
    id
}

fn both_run(crictl: &Crictl<'_>, pod: &str) {
    let list = crictl.json(&["ps", "--pod", pod]);
    let mut names: Vec<_> = list["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["metadata"]["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["server", "sidecar"], "{list}");
}

fn exit_code_of_exec_comes_back(crictl: &Crictl<'_>, server: &str) {
    let output = crictl
        .command(&["exec", "-s", server, "/payload", "exit", "7"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains('7'), "{said}");
}

fn statistics_are_there(crictl: &Crictl<'_>, server: &str, pod: &str) {
    let stats = crictl.json(&["stats", server]);
    let memory = stats["stats"][0]["memory"]["workingSetBytes"]["value"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(memory.parse::<u64>().is_ok_and(|bytes| bytes > 0), "{stats}");
    let pods = crictl.json(&["statsp", "--id", pod]);
    let received = &pods["stats"][0]["linux"]["network"]["defaultInterface"]["rxBytes"]["value"];
    assert!(
        received
            .as_str()
            .unwrap_or_default()
            .parse::<u64>()
            .is_ok_and(|bytes| bytes > 0),
        "{pods}"
    );
}

fn pod(logs: &str) -> Value {
    json!({
        "metadata": { "name": "crictl-pod", "namespace": "default", "uid": "crictl-uid", "attempt": 1 },
        "hostname": "crictl-pod",
        "log_directory": logs,
        "port_mappings": [{ "container_port": 8080, "host_port": 18080 }],
        "linux": {},
    })
}

fn write(node: &Node, name: &str, value: &Value) -> String {
    let path: PathBuf = node.scratch().join(name);
    fs::write(&path, value.to_string()).unwrap();
    path.display().to_string()
}
