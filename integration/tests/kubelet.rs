//! The real kubelet on `coracled`, alone with static pods: what a node of a cluster asks of a runtime, asked for real.

use std::time::Duration;

use coracle_integration::daemon::{Daemon, PAYLOAD};
use coracle_integration::kubelet::Kubelet;
use coracle_integration::leak::Snapshot;
use coracle_integration::node::{self, Node};
use serde_json::{Value, json};

/// A pod of the kubelet's has this long to become what it should.
const READY: Duration = Duration::from_secs(150);
/// The kubelet removes dead containers once a minute.
const COLLECTED: Duration = Duration::from_secs(150);

#[test]
fn static_pods_live_restart_and_leave_nothing() {
    node::run_for("kubelet", Duration::from_secs(1800), |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let kubelet = Kubelet::start(node, &daemon.socket());

        kubelet.add("whole", &whole_pod());
        kubelet.add("crashing", &crashing_pod());
        kubelet.add("hungry", &hungry_pod());
        kubelet.add("ailing", &ailing_pod());

        whole_pod_becomes_ready(node, &kubelet);
        whole_pod_shares_its_volume(&kubelet);
        log_and_exec_go_through_the_kubelet(&kubelet);
        statistics_name_the_pods_network(&kubelet);
        crash_is_reported_and_restarted(&kubelet);
        memory_hog_is_oom_killed(&kubelet);
        failed_liveness_probe_restarts(&kubelet);
        killed_daemon_restarts_no_container(&daemon, &kubelet);

        for name in ["whole", "crashing", "hungry", "ailing"] {
            kubelet.remove(name);
        }
        kubelet_forgets_all(&kubelet);
        let empty = coracle_integration::wait::until(COLLECTED, || everything_removed(&daemon));
        empty.unwrap_or_else(|left| panic!("still there after {COLLECTED:?}: {left}"));
        kubelet.stop();
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

/// Ready means that its init container has ended, its sidecar has started, and all three kinds of probes have succeeded.
fn whole_pod_becomes_ready(node: &Node, kubelet: &Kubelet<'_>) {
    let pod = kubelet.wait_for_pod("whole", READY, "ready", |pod| condition(pod, "Ready"));
    let status = &pod["status"];
    assert_eq!(
        status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0,
        "{status}"
    );
    assert_eq!(status["containerStatuses"].as_array().unwrap().len(), 2);
    let address = status["podIP"].as_str().unwrap();
    assert!(address.starts_with("10.88."), "{address}");
    let served = node.output(&["curl", "-sS", "--max-time", "60", "http://10.88.0.1:18080/"]);
    assert!(served.contains("hello"), "the host port answers: {served}");
}

fn whole_pod_shares_its_volume(kubelet: &Kubelet<'_>) {
    let seen = kubelet
        .run("whole", "reader", "/payload cat /shared/from-writer")
        .unwrap();
    assert_eq!(
        seen.trim(),
        "written",
        "both containers share the memory-backed emptyDir"
    );
    let mounts = kubelet.run("whole", "reader", "/payload mounts").unwrap();
    let shared = mounts
        .lines()
        .find(|line| line.contains(" /shared "))
        .expect("the volume is mounted");
    assert!(shared.contains(" - tmpfs "), "{shared}");
}

fn log_and_exec_go_through_the_kubelet(kubelet: &Kubelet<'_>) {
    let log = kubelet.log_of("whole", "init").unwrap();
    assert!(log.contains("prepared"), "{log}");
    let environment = kubelet.run("whole", "server", "/payload env").unwrap();
    assert!(
        environment.contains("POD_NAME=whole-node"),
        "the downward API: {environment}"
    );
    assert!(
        environment.contains("MEMORY_LIMIT=67108864"),
        "the downward API: {environment}"
    );
}

fn statistics_name_the_pods_network(kubelet: &Kubelet<'_>) {
    let summary = coracle_integration::wait::until(READY, || {
        // It keeps what it has asked for for some seconds, and refuses while it has asked for nothing.
        let said = kubelet.read_only("/stats/summary")?;
        let summary: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
        let pods = summary["pods"].as_array().cloned().unwrap_or_default();
        let pod = pods.into_iter().find(|pod| pod["podRef"]["name"] == "whole-node");
        pod.filter(|pod| memory_of_server(pod) > 0 && pod["network"]["rxBytes"].as_u64() > Some(0))
            .ok_or(said)
    });
    let pod = summary.unwrap_or_else(|last| panic!("no figures: {last}"));
    assert!(pod["network"]["txBytes"].as_u64().unwrap() > 0, "{pod}");
    assert!(memory_of_server(&pod) < 64 << 20, "{pod}");
}

fn memory_of_server(pod: &Value) -> u64 {
    let containers = pod["containers"].as_array().cloned().unwrap_or_default();
    let server = containers.iter().find(|container| container["name"] == "server");
    server
        .and_then(|server| server["memory"]["workingSetBytes"].as_u64())
        .unwrap_or_default()
}

fn crash_is_reported_and_restarted(kubelet: &Kubelet<'_>) {
    let pod = kubelet.wait_for_pod("crashing", READY, "restarted with its exit code", |pod| {
        container(pod, 0)["restartCount"]
            .as_u64()
            .is_some_and(|count| count >= 1)
    });
    let last = &container(&pod, 0)["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 3, "{pod}");
    assert_eq!(
        last["message"].as_str().unwrap().trim(),
        "out of luck",
        "the termination message: {pod}"
    );
    assert_eq!(last["reason"], "Error", "{pod}");
}

fn memory_hog_is_oom_killed(kubelet: &Kubelet<'_>) {
    let pod = kubelet.wait_for_pod("hungry", READY, "OOMKilled", |pod| {
        let status = container(pod, 0);
        status["state"]["terminated"]["reason"] == "OOMKilled"
            || status["lastState"]["terminated"]["reason"] == "OOMKilled"
    });
    let status = container(&pod, 0);
    let ended = if status["state"]["terminated"].is_null() {
        &status["lastState"]
    } else {
        &status["state"]
    };
    assert_eq!(ended["terminated"]["exitCode"], 137, "{pod}");
}

fn failed_liveness_probe_restarts(kubelet: &Kubelet<'_>) {
    let _ = kubelet.wait_for_pod("ailing", READY, "restarted by its liveness probe", |pod| {
        container(pod, 0)["restartCount"]
            .as_u64()
            .is_some_and(|count| count >= 1)
    });
}

fn killed_daemon_restarts_no_container(daemon: &Daemon<'_>, kubelet: &Kubelet<'_>) {
    let identities = |kubelet: &Kubelet<'_>| {
        let pod = kubelet.pod("whole").expect("the pod");
        (0..2)
            .map(|index| container(&pod, index)["containerID"].clone())
            .collect::<Vec<_>>()
    };
    let before = identities(kubelet);
    // Long enough for probes and a sync of the kubelet's to meet no daemon, and then to act on what they saw.
    daemon.kill9();
    std::thread::sleep(Duration::from_secs(3));
    daemon.restart();
    std::thread::sleep(Duration::from_secs(10));
    let _ = kubelet.wait_for_pod("whole", READY, "ready again", |pod| condition(pod, "Ready"));
    assert_eq!(identities(kubelet), before, "the same containers run");
    let pod = kubelet.pod("whole").unwrap();
    for index in 0..2 {
        assert_eq!(container(&pod, index)["restartCount"], 0, "{pod}");
    }
}

fn kubelet_forgets_all(kubelet: &Kubelet<'_>) {
    for name in ["whole", "crashing", "hungry", "ailing"] {
        coracle_integration::wait::until_true(READY, &format!("the kubelet forgets {name}"), || {
            kubelet.pod(name).is_none()
        });
    }
}

fn everything_removed(daemon: &Daemon<'_>) -> Result<(), String> {
    let cri = daemon.cri();
    let pods = cri.list_pod_sandbox(Default::default()).unwrap().items;
    let containers = cri.list_containers(Default::default()).unwrap().containers;
    if pods.is_empty() && containers.is_empty() {
        Ok(())
    } else {
        Err(format!("{pods:?} {containers:?}"))
    }
}

fn condition(pod: &Value, name: &str) -> bool {
    let conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition["type"] == name && condition["status"] == "True")
}

fn container(pod: &Value, index: usize) -> &Value {
    &pod["status"]["containerStatuses"][index]
}

/// Init container, native sidecar, two containers with a memory-backed emptyDir, all probes, a host port, limits, downward API.
fn whole_pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "whole", "namespace": "default" },
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "volumes": [{ "name": "shared", "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" } }],
            "initContainers": [
                { "name": "init", "image": PAYLOAD, "imagePullPolicy": "Never",
                  "args": ["echo", "prepared"] },
                { "name": "sidecar", "image": PAYLOAD, "imagePullPolicy": "Never", "restartPolicy": "Always",
                  "args": ["serve", "9090"],
                  "startupProbe": { "tcpSocket": { "port": 9090 }, "periodSeconds": 1 } },
            ],
            "containers": [
                { "name": "server", "image": PAYLOAD, "imagePullPolicy": "Never",
                  "args": ["write", "/shared/from-writer", "written", "--", "serve", "8080"],
                  "ports": [{ "containerPort": 8080, "hostPort": 18080 }],
                  "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }],
                  "resources": { "limits": { "cpu": "500m", "memory": "64Mi" }, "requests": { "cpu": "10m", "memory": "16Mi" } },
                  "env": [
                      { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                      { "name": "MEMORY_LIMIT", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory" } } },
                  ],
                  "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
                  "livenessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 } },
                { "name": "reader", "image": PAYLOAD, "imagePullPolicy": "Never",
                  "args": ["sleep", "100000"],
                  "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }],
                  "readinessProbe": { "exec": { "command": ["/payload", "cat", "/shared/from-writer"] }, "periodSeconds": 1 } },
            ],
        }
    })
}

fn crashing_pod() -> Value {
    let mut pod = simple_pod(
        "crashing",
        &["write", "/dev/termination-log", "out of luck", "--", "exit", "3"],
    );
    pod["spec"]["restartPolicy"] = json!("Always");
    pod
}

fn hungry_pod() -> Value {
    let mut pod = simple_pod("hungry", &["fill-memory", "256"]);
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "32Mi" } });
    pod
}

fn ailing_pod() -> Value {
    let mut pod = simple_pod("ailing", &["serve", "8080"]);
    pod["spec"]["containers"][0]["livenessProbe"] = json!({ "exec": { "command": ["/payload", "exit", "1"] }, "periodSeconds": 1, "failureThreshold": 2 });
    pod
}

fn simple_pod(name: &str, arguments: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "only", "image": PAYLOAD, "imagePullPolicy": "Never", "args": arguments }],
        }
    })
}
