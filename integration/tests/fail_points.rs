//! Killed before and after every step of every request that leaves something behind: repeated, the request succeeds, and
//! in the end nothing is left.

use std::path::Path;
use std::time::Duration;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    CreateContainerRequest, PodSandboxConfig, PodSandboxState, RemoveContainerRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopContainerRequest,
    StopPodSandboxRequest,
};
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::node;
use coracle_integration::{pods, programs, wait};
use tonic::{Code, Status};

/// The requests whose steps are listed; each must have at least one.
const OPERATIONS: &[&str] = &[
    "run_pod_sandbox",
    "create_container",
    "start_container",
    "stop_container",
    "remove_container",
    "stop_pod_sandbox",
    "remove_pod_sandbox",
];

#[test]
fn killed_at_every_step_nothing_is_lost_and_nothing_left() {
    node::run_for("fail-points", Duration::from_secs(1800), |node| {
        let steps = programs::stdout_of(node.command(programs::ours("coracled")).arg("--list-steps"));
        let steps: Vec<&str> = steps.lines().collect();
        for operation in OPERATIONS {
            let prefix = format!("{operation}.");
            assert!(
                steps.iter().any(|step| step.starts_with(&prefix)),
                "no step of {operation} among {steps:?}"
            );
        }
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let mut unreached = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            for moment in ["before", "after"] {
                let point = format!("{step}:{moment}");
                daemon.kill9();
                daemon.restart_with(&["--fail-point", &point]);
                let deaths = live(&daemon, &format!("pod{number}{moment}"), &node.folder("logs"));
                if deaths == 0 {
                    daemon.kill9();
                    daemon.restart();
                    unreached.push(point.clone());
                }
                daemon.uninstall_network();
                let difference = wait::until(wait::SOON, || {
                    let difference = before.difference(node);
                    if difference.is_empty() {
                        Ok(())
                    } else {
                        Err(difference)
                    }
                });
                if let Err(difference) = difference {
                    panic!("killed at {point}, the node is not as it was:\n{difference}");
                }
            }
        }
        assert!(
            unreached.is_empty(),
            "the life of a pod does not pass {unreached:?}"
        );
        println!("{} fail points", 2 * steps.len());
    });
}

/// One pod's whole life. A request that dies with the daemon is repeated, as the kubelet does; how often that was.
fn live(daemon: &Daemon<'_>, name: &str, logs: &Path) -> usize {
    let life = Life {
        daemon,
        deaths: std::cell::Cell::new(0),
    };
    let config = pods::sandbox(name, logs);
    let pod = life.run(&config);
    let container = life.create(&pod, &config);
    life.start(&container);
    life.request("ExecSync", |cri| {
        let exec = cri.exec_in(&container, &["/payload", "true"]);
        assert_eq!(exec.exit_code, 0, "{exec:?}");
        Ok(())
    });
    life.request("StopContainer", |cri| {
        cri.stop_container(StopContainerRequest {
            container_id: container.clone(),
            timeout: 2,
        })
        .map(drop)
    });
    life.request("RemoveContainer", |cri| {
        cri.remove_container(RemoveContainerRequest {
            container_id: container.clone(),
        })
        .map(drop)
    });
    life.request("StopPodSandbox", |cri| {
        cri.stop_pod_sandbox(StopPodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        })
        .map(drop)
    });
    life.request("RemovePodSandbox", |cri| {
        cri.remove_pod_sandbox(RemovePodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        })
        .map(drop)
    });
    life.deaths.get()
}

struct Life<'a> {
    daemon: &'a Daemon<'a>,
    deaths: std::cell::Cell<usize>,
}

impl Life<'_> {
    /// Asks; when the daemon dies of it, starts it again and asks once more.
    fn request<T>(&self, what: &str, ask: impl Fn(&Cri) -> Result<T, Status>) -> T {
        match ask(&self.daemon.cri()) {
            Ok(answer) if self.daemon.runs() => answer,
            first => {
                self.daemon.wait_for_end(wait::SOON);
                self.deaths.set(self.deaths.get() + 1);
                self.daemon.restart();
                let again = ask(&self.daemon.cri());
                let first = first.map(drop);
                again.unwrap_or_else(|status| panic!("{what}, repeated after {first:?}: {status:?}"))
            }
        }
    }

    /// As the kubelet does after a restart: a pod of that name that is ready is the pod; else it asks again.
    fn run(&self, config: &PodSandboxConfig) -> String {
        self.request("RunPodSandbox", |cri| {
            let name = config.metadata.as_ref().unwrap().name.as_str();
            let ready = cri
                .list_pod_sandbox(Default::default())?
                .items
                .into_iter()
                .find(|pod| {
                    pod.metadata
                        .as_ref()
                        .is_some_and(|metadata| metadata.name == name)
                        && pod.state() == PodSandboxState::SandboxReady
                });
            if let Some(pod) = ready {
                return Ok(pod.id);
            }
            let request = RunPodSandboxRequest {
                config: Some(config.clone()),
                ..Default::default()
            };
            Ok(cri.run_pod_sandbox(request)?.pod_sandbox_id)
        })
    }

    fn create(&self, pod: &str, config: &PodSandboxConfig) -> String {
        self.request("CreateContainer", |cri| {
            let existing = cri.list_containers(Default::default())?.containers;
            if let Some(container) = existing
                .into_iter()
                .find(|container| container.pod_sandbox_id == pod)
            {
                return Ok(container.id);
            }
            let request = CreateContainerRequest {
                pod_sandbox_id: pod.to_owned(),
                config: Some(pods::container("only", &["serve", "8080"])),
                sandbox_config: Some(config.clone()),
            };
            Ok(cri.create_container(request)?.container_id)
        })
    }

    /// A container that was started before the daemon died refuses to be started again: that is a success here.
    fn start(&self, container: &str) {
        let dead_before = self.deaths.get();
        self.request("StartContainer", |cri| {
            match cri.start_container(StartContainerRequest {
                container_id: container.to_owned(),
            }) {
                Err(status)
                    if self.deaths.get() > dead_before && status.code() == Code::FailedPrecondition =>
                {
                    Ok(())
                }
                other => other.map(drop),
            }
        });
    }
}
