//! From StartPod to Shutdown.

use std::fs;

use coracle_shim_api::Code;
use coracle_shim_api::pod::{ContainerStatus, NamespaceMode};

use crate::pod::{mounts, with_shim};

#[test]
fn a_pod_runs_a_container_and_leaves_nothing() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let log = pod
            .run("one", "echo hello; echo error >&2; hostname; exit 3")
            .await;
        let state = pod.wait("one").await;
        assert_eq!(
            (state.exit_code, state.oom_killed),
            (3, false),
            "{}",
            fs::read_to_string(&log).unwrap()
        );
        assert_eq!(
            state.status.enum_value(),
            Ok(ContainerStatus::CONTAINER_STATUS_STOPPED)
        );
        assert!(
            state.created_at > 0
                && state.started_at >= state.created_at
                && state.finished_at >= state.started_at
        );
        let text = fs::read_to_string(log).unwrap();
        for end in [" stdout F hello", " stderr F error", " stdout F the-pod"] {
            assert!(text.lines().any(|line| line.ends_with(end)), "{text}");
        }
        pod.call(pod.client.delete_container("one")).await.unwrap();
        let error = pod.call(pod.client.wait_container("one")).await.unwrap_err();
        assert!(error.is(Code::NOT_FOUND), "{error}");
        pod.call(pod.client.stop_pod()).await.unwrap();
        pod.call(pod.client.stop_pod()).await.unwrap();
        pod
    });
}

#[test]
fn every_pid_mode_works_and_ends_all_processes() {
    for mode in [
        NamespaceMode::NAMESPACE_MODE_POD,
        NamespaceMode::NAMESPACE_MODE_CONTAINER,
        NamespaceMode::NAMESPACE_MODE_NODE,
    ] {
        with_shim(move |pod| async move {
            let mut request = pod.request();
            request.pid = mode.into();
            let started = pod.call(pod.client.start_pod(&request)).await.unwrap();
            assert_eq!(started.init_pid != 0, mode == NamespaceMode::NAMESPACE_MODE_POD);
            let log = pod
                .run(
                    "main",
                    "setsid sleep 1000 & (setsid sleep 1001 &) ; echo pid $$; sleep 0.2",
                )
                .await;
            let state = pod.wait("main").await;
            assert_eq!(state.exit_code, 0);
            let text = fs::read_to_string(log).unwrap();
            assert_eq!(
                text.contains("pid 1\n"),
                mode == NamespaceMode::NAMESPACE_MODE_CONTAINER,
                "{text}"
            );
            pod.run("left-running", "setsid sleep 1002 & sleep 1003").await;
            pod
        });
    }
}

#[test]
fn containers_share_the_pods_network_ipc_host_name_and_shm() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        assert_eq!(
            mounts().lines().filter(|line| line.contains("netns/pod")).count(),
            1
        );
        pod.run("one", "echo shared > /dev/shm/file; sleep 1000").await;
        let two = pod
            .run(
                "two",
                "sleep 0.1; cat /dev/shm/file; readlink /proc/self/ns/net; ip addr show lo",
            )
            .await;
        pod.wait("two").await;
        let text = fs::read_to_string(two).unwrap();
        assert!(text.contains("F shared\n"), "{text}");
        assert!(text.contains("LOOPBACK,UP"), "{text}");
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let shim = of(pod.shim.id());
        assert!(text.contains(shim.to_str().unwrap()), "{text}");
        assert_ne!(shim, of(std::process::id()));
        let ports = pod
            .exec("one", &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"])
            .await
            .unwrap();
        assert_eq!(ports.0, b"0\n");
        pod
    });
}
