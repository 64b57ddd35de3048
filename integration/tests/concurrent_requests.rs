//! Requests about one pod that come at the same time, twice, or whose client goes away: each ends as if it had come alone,
//! in some order.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerStatusRequest, ListContainersRequest, ListPodSandboxRequest, PodSandboxState,
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopContainerRequest, StopPodSandboxRequest,
};
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::node::{self, Node};
use coracle_integration::{cgroups, pods, wait};
use tonic::{Code, Status};

/// How often requests are let loose on each other.
const ROUNDS: usize = 12;

#[test]
fn one_pod_asked_for_twice_at_once_is_one_pod() {
    node::run("twice-at-once", |node| {
        let daemon = Daemon::start(node);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("twin", &node.folder("logs"));
        let asked: Vec<_> = (0..4)
            .map(|_| {
                let config = config.clone();
                in_parallel(node, daemon.socket(), move |cri| Ok(cri.run(&config)))
            })
            .collect();
        let ids: Vec<String> = asked
            .into_iter()
            .map(|one| one.join().unwrap().unwrap())
            .collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        cri.discard(&ids[0]);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn a_request_whose_client_goes_away_is_done_to_its_end() {
    node::run("client-gone", |node| {
        let daemon = Daemon::start(node);
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("abandoned", &node.folder("logs"));
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        // Too short for a pod, long enough to be sent: the client is gone while the pod is made.
        let gone = cri.run_pod_sandbox_within(request, Duration::from_millis(2));
        let ready = || {
            let listed = cri.list_pod_sandbox(ListPodSandboxRequest::default());
            listed
                .unwrap()
                .items
                .into_iter()
                .find(|pod| pod.state() == PodSandboxState::SandboxReady)
        };
        // It may also have been too short to be sent at all; then the repeated request makes the pod.
        let _ = wait::until(Duration::from_millis(500), || ready().ok_or(()));
        let pod = cri.run(&config);
        assert_eq!(ready().map(|pod| pod.id), Some(pod.clone()), "{gone:?}");
        let all = cri.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
        assert_eq!(all.items.len(), 1, "{all:?}");
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn start_stop_and_removal_of_one_container_at_once_leave_nothing() {
    node::run("all-at-once", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("busy", &node.folder("logs"));
        let pod = cri.run(&config);
        for round in 0..ROUNDS {
            let name = format!("c{round}");
            let id = cri.create(&pod, &config, &pods::container(&name, &["serve", "8080"]));
            let at_once: Vec<_> = (0..4)
                .map(|which| {
                    let id = id.clone();
                    in_parallel(node, daemon.socket(), move |cri| ask(&cri, which, &id))
                })
                .collect();
            for one in at_once {
                if let Err(status) = one.join().unwrap() {
                    // A start may come too late.
                    assert!(
                        matches!(status.code(), Code::NotFound | Code::FailedPrecondition),
                        "{status:?}"
                    );
                }
            }
            let request = ContainerStatusRequest {
                container_id: id.clone(),
                verbose: false,
            };
            let status = cri.container_status(request).unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
        }
        cri.discard(&pod);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn a_pod_that_is_removed_while_containers_are_made_leaves_nothing() {
    node::run("removed-meanwhile", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        for round in 0..ROUNDS {
            let config = pods::sandbox(&format!("pod{round}"), &node.folder("logs"));
            let pod = cri.run(&config);
            let making: Vec<_> = ["a", "b"]
                .map(|name| {
                    let (pod, config) = (pod.clone(), config.clone());
                    in_parallel(node, daemon.socket(), move |cri| {
                        let request = coracle_integration::cri::v1::CreateContainerRequest {
                            pod_sandbox_id: pod,
                            config: Some(pods::container(name, &["serve", "8080"])),
                            sandbox_config: Some(config),
                        };
                        let container_id = cri.create_container(request)?.container_id;
                        cri.start_container(StartContainerRequest { container_id })
                            .map(drop)
                    })
                })
                .into();
            let removing = [pod.clone(), pod.clone()].map(|pod_sandbox_id| {
                in_parallel(node, daemon.socket(), move |cri| {
                    cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id })
                        .map(drop)
                })
            });
            for removed in removing {
                removed.join().unwrap().unwrap();
            }
            let refused: Vec<Status> = making
                .into_iter()
                .filter_map(|one: JoinHandle<Result<(), Status>>| one.join().unwrap().err())
                .collect();
            assert!(
                refused
                    .iter()
                    .all(|status| matches!(status.code(), Code::NotFound | Code::FailedPrecondition)),
                "{refused:?}"
            );
        }
        assert_eq!(
            cri.list_containers(ListContainersRequest::default())
                .unwrap()
                .containers,
            []
        );
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn an_id_that_could_mean_several_is_refused_and_not_taken_for_gone() {
    node::run("ambiguous-id", |node| {
        let daemon = Daemon::start(node);
        let cri = daemon.cri();
        let stop = |id: &str| {
            cri.stop_pod_sandbox(StopPodSandboxRequest {
                pod_sandbox_id: id.to_owned(),
            })
        };
        assert_eq!(stop("").unwrap_err().code(), Code::InvalidArgument);
        // 17 ids: two of them begin with the same digit.
        let running: Vec<String> = (0..17)
            .map(|number| {
                cri.run(&pods::host_network_sandbox(
                    &format!("pod{number}"),
                    &node.folder("logs"),
                ))
            })
            .collect();
        let digits: Vec<&str> = running.iter().map(|id| &id[..1]).collect();
        let shared = digits
            .iter()
            .find(|digit| digits.iter().filter(|other| other == digit).count() > 1)
            .unwrap();
        let refused = stop(shared).unwrap_err();
        assert!(
            refused.code() == Code::InvalidArgument && refused.message().contains("pod_sandbox_id"),
            "{refused:?}"
        );
        running.iter().for_each(|pod| cri.discard(pod));
    });
}

#[test]
fn pods_that_share_a_parent_cgroup_leave_it_together() {
    node::run("shared-parent", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let parent = format!("{}/asked/for", node.cgroup());
        let run = |name: &str| {
            let mut config = pods::sandbox(name, &node.folder("logs"));
            config.linux.as_mut().unwrap().cgroup_parent.clone_from(&parent);
            let pod = cri.run(&config);
            let _ = cri.launch(&pod, &config, &pods::container("server", &["serve", "8080"]));
            pod
        };
        let (first, second) = (run("first"), run("second"));
        cri.discard(&first);
        assert!(!cgroups::processes(&parent).is_empty(), "the second runs on");
        let third = run("third");
        // The claims outlive the daemon.
        daemon.kill9();
        daemon.restart();
        let cri = daemon.cri();
        cri.discard(&second);
        assert!(!cgroups::processes(&parent).is_empty(), "the third runs on");
        cri.discard(&third);
        assert_eq!(cgroups::directories(&parent), Vec::<PathBuf>::new());
        assert!(!daemon.log().contains("does not leave"), "{}", daemon.log());
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

fn ask(cri: &Cri, which: usize, id: &str) -> Result<(), Status> {
    let container_id = id.to_owned();
    match which {
        0 => cri
            .start_container(StartContainerRequest { container_id })
            .map(drop),
        1 => cri
            .stop_container(StopContainerRequest {
                container_id,
                timeout: 1,
            })
            .map(drop),
        2 => cri
            .remove_container(RemoveContainerRequest { container_id })
            .map(drop),
        _ => cri.list_containers(ListContainersRequest::default()).map(drop),
    }
}

fn in_parallel<T: Send + 'static>(
    node: &Node,
    socket: PathBuf,
    request: impl FnOnce(Cri) -> Result<T, Status> + Send + 'static,
) -> JoinHandle<Result<T, Status>> {
    node.spawn_thread(move || request(Cri::connect(&socket)))
}
