//! From StartPod to Shutdown.

use std::fs;
use std::time::{Duration, Instant};

use coracle_shim_api::Code;
use coracle_shim_api::pod::{ContainerStatus, NamespaceMode};

use serde_json::json;

use coracle_tests::cgroup;
use coracle_tests::wait::{PATIENCE, wait_until};

use crate::pod::{mounts, spec, with_shim};

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
                "until [ -s /dev/shm/file ]; do sleep 0.01; done; cat /dev/shm/file; readlink /proc/self/ns/net; ip addr show lo",
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

#[test]
fn a_container_that_eats_memory_is_reported_as_oom_killed() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let mut config = spec(
            &["/bin/sh", "-c", "tail /dev/zero"],
            &format!("{}/pod/eater", pod.cgroup),
        );
        config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
        let (request, _) = pod.container_of("eater", &config);
        pod.call(pod.client.create_container(&request)).await.unwrap();
        pod.call(pod.client.start_container("eater")).await.unwrap();
        let state = pod.wait("eater").await;
        assert_eq!((state.exit_code, state.oom_killed), (137, true));
        pod.run("killed", "kill -9 $$").await;
        let state = pod.wait("killed").await;
        assert_eq!((state.exit_code, state.oom_killed), (137, false));
        pod
    });
}

#[test]
fn a_container_that_is_being_removed_has_its_exit_code() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let hooked = pod.scratch().join("hooked");
        let script = format!(
            "echo > {0}; until [ -e {0}.go ]; do sleep 0.01; done",
            hooked.display()
        );
        let mut config = spec(&["/bin/sh", "-c", "exit 7"], &format!("{}/pod/c", pod.cgroup));
        config["hooks"] = json!({"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
        let (request, _) = pod.container_of("c", &config);
        pod.call(pod.client.create_container(&request)).await.unwrap();
        pod.call(pod.client.start_container("c")).await.unwrap();
        assert_eq!(pod.wait("c").await.exit_code, 7);
        let (deleted, ()) = tokio::join!(pod.call(pod.client.delete_container("c")), async {
            let begun = Instant::now();
            while !hooked.exists() {
                assert!(begun.elapsed() < PATIENCE, "the poststop hook does not run");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let state = pod.client.state().await.unwrap();
            let [c] = state.containers.as_slice() else {
                panic!("{} containers", state.containers.len())
            };
            let stopped = ContainerStatus::CONTAINER_STATUS_STOPPED;
            assert_eq!((c.status.enum_value(), c.exit_code), (Ok(stopped), 7));
            fs::write(hooked.with_extension("go"), "").unwrap();
        });
        deleted.unwrap();
        pod
    });
}

#[test]
fn a_signal_to_all_reaches_the_first_process_too() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let child = r#"trap "echo child; exit" TERM; echo > /dev/shm/ready; while :; do sleep 0.02; done"#;
        let first = "trap 'wait $!; echo first; exit 0' TERM";
        let script = format!("{first}; sh -c '{child}' & while :; do sleep 0.02; done");
        let log = pod.run("c", &script).await;
        let ready = ["sh", "-c", "until [ -e /dev/shm/ready ]; do sleep 0.01; done"];
        pod.exec("c", &ready).await.unwrap();
        pod.call(pod.client.kill_container("c", 15, true)).await.unwrap();
        assert_eq!(pod.wait("c").await.exit_code, 0);
        let text = fs::read_to_string(log).unwrap();
        for said in [" F child\n", " F first\n"] {
            assert!(text.contains(said), "{said}: {text}");
        }
        pod
    });
}

#[test]
fn calls_in_the_wrong_state_are_refused_and_change_nothing() {
    with_shim(|pod| async move {
        let (request, log) = pod.container("c", "sleep 1000");
        let error = pod.call(pod.client.create_container(&request)).await.unwrap_err();
        assert!(error.is(Code::FAILED_PRECONDITION), "{error}");
        pod.start_pod().await;
        let error = pod.call(pod.client.start_pod(&pod.request())).await.unwrap_err();
        assert!(error.is(Code::FAILED_PRECONDITION), "{error}");
        pod.call(pod.client.create_container(&request)).await.unwrap();
        let error = pod.call(pod.client.create_container(&request)).await.unwrap_err();
        assert!(error.is(Code::ALREADY_EXISTS), "{error}");
        pod.call(pod.client.start_container("c")).await.unwrap();
        let error = pod.call(pod.client.start_container("c")).await.unwrap_err();
        assert!(error.is(Code::FAILED_PRECONDITION), "{error}");
        let error = pod
            .call(pod.client.kill_container("c", 99, false))
            .await
            .unwrap_err();
        assert!(error.is(Code::INVALID_ARGUMENT), "{error}");
        pod.call(pod.client.kill_container("c", 9, false)).await.unwrap();
        assert_eq!(pod.wait("c").await.exit_code, 137);
        pod.call(pod.client.kill_container("c", 9, true)).await.unwrap();
        assert!(log.exists());
        pod.call(pod.client.stop_pod()).await.unwrap();
        let (late, _) = pod.container("late", "true");
        let error = pod.call(pod.client.create_container(&late)).await.unwrap_err();
        assert!(error.is(Code::FAILED_PRECONDITION), "{error}");
        pod
    });
}

#[test]
fn a_bad_request_names_its_field_and_leaves_nothing() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let good = || spec(&["/bin/true"], &format!("{}/pod/c", pod.cgroup));
        let change = |path: &str, value: serde_json::Value| {
            let mut config = good();
            *config.pointer_mut(path).unwrap() = value;
            config
        };
        let mut hostname = good();
        hostname["hostname"] = json!("x");
        let mut no_process = good();
        no_process.as_object_mut().unwrap().remove("process");
        for (config, named) in [
            (change("/linux/cgroupsPath", json!("/elsewhere/c")), "cgroupsPath"),
            (
                change("/linux/cgroupsPath", json!(format!("{}/pod/../../x", pod.cgroup))),
                "cgroupsPath",
            ),
            (hostname, "hostname"),
            (no_process, "process"),
            (change("/process/args", json!([])), "process.args"),
            (change("/process/cwd", json!("relative")), "process.cwd"),
            (change("/root", json!("x")), "spec"),
        ] {
            let (request, _) = pod.container_of("c", &config);
            let error = pod.call(pod.client.create_container(&request)).await.unwrap_err();
            assert!(
                error.is(Code::INVALID_ARGUMENT) && error.to_string().contains(named),
                "{named}: {error}"
            );
        }
        let (mut request, log) = pod.container("c", "true");
        request.overlay.as_mut().unwrap().lower = vec!["missing".into()];
        let error = pod.call(pod.client.create_container(&request)).await.unwrap_err();
        assert!(
            error.is(Code::INTERNAL) && error.to_string().contains("overlay of 1 layers"),
            "{error}"
        );
        request.id = "../c".into();
        let error = pod.call(pod.client.create_container(&request)).await.unwrap_err();
        assert!(
            error.is(Code::INVALID_ARGUMENT) && error.to_string().contains("id: "),
            "{error}"
        );
        assert!(!log.exists());
        let (mut request, _) = pod.container("c", "true");
        request.log_path = "/proc/nowhere/c.log".into();
        let error = pod.call(pod.client.create_container(&request)).await.unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere/c.log"), "{error}");
        let state = pod.call(pod.client.state()).await.unwrap();
        assert!(state.containers.is_empty(), "{:?}", state.containers.len());
        assert!(cgroup::directories(&format!("{}/pod/c", pod.cgroup)).is_empty());
        // The same name is good again; its writable layer is not, since it was mounted volatile.
        fs::remove_dir_all(pod.dir.join("c")).unwrap();
        pod.run("c", "exit 5").await;
        assert_eq!(pod.wait("c").await.exit_code, 5);
        pod
    });
}

#[test]
fn a_program_that_cannot_be_executed_fails_the_start() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let (request, _) = pod.container_of("c", &spec(&["/etc"], &format!("{}/pod/c", pod.cgroup)));
        let created = pod.call(pod.client.create_container(&request)).await;
        let error = match created {
            Err(error) => error,
            Ok(_) => pod.call(pod.client.start_container("c")).await.unwrap_err(),
        };
        assert!(error.to_string().contains("/etc"), "{error}");
        pod
    });
}

#[test]
fn a_pod_on_the_host_has_the_hosts_namespaces() {
    with_shim(|pod| async move {
        let mut request = pod.request();
        let node = NamespaceMode::NAMESPACE_MODE_NODE;
        (request.network, request.ipc, request.pid) = (node.into(), node.into(), node.into());
        request.netns_path.clear();
        request.hostname.clear();
        pod.call(pod.client.start_pod(&request)).await.unwrap();
        let (mut request, log) = pod.container(
            "c",
            "for kind in net ipc uts pid; do readlink /proc/self/ns/$kind; done",
        );
        let error = pod.call(pod.client.create_container(&request)).await.unwrap_err();
        assert!(error.to_string().contains("share_shm"), "{error}");
        request.share_shm = false;
        pod.call(pod.client.create_container(&request)).await.unwrap();
        pod.call(pod.client.start_container("c")).await.unwrap();
        pod.wait("c").await;
        let text = fs::read_to_string(log).unwrap();
        for kind in ["net", "ipc", "uts", "pid"] {
            let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert!(text.contains(own.to_str().unwrap()), "{kind}: {text}");
        }
        pod
    });
}

#[test]
fn a_failed_start_of_the_pod_leaves_nothing() {
    with_shim(|pod| async move {
        let mut request = pod.request();
        request.sysctls = [("net.ipv4.ip_forward".into(), "not a number".into())].into();
        let error = pod.call(pod.client.start_pod(&request)).await.unwrap_err();
        assert!(
            error.is(Code::INTERNAL) && error.to_string().contains("ip_forward"),
            "{error}"
        );
        assert!(!pod.netns.exists());
        assert!(cgroup::directories(&format!("{}/pod", pod.cgroup)).is_empty());
        pod
    });
}

#[test]
fn orphans_of_a_pod_in_the_hosts_pid_namespace_are_collected() {
    with_shim(|pod| async move {
        let mut request = pod.request();
        request.pid = NamespaceMode::NAMESPACE_MODE_NODE.into();
        pod.call(pod.client.start_pod(&request)).await.unwrap();
        pod.run("c", "for i in 1 2 3 4 5; do (sleep 0.05 &); done; sleep 1000")
            .await;
        let children = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", pod.shim.id())).unwrap();
        wait_until("orphans to be collected", || {
            children().split_whitespace().count() == 1
        });
        pod
    });
}

#[test]
fn many_containers_at_once_get_in_nobodys_way() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let pod = std::sync::Arc::new(pod);
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..12 {
            let pod = std::sync::Arc::clone(&pod);
            workers.spawn(async move {
                for round in 0..4 {
                    let id = format!("c{worker}-{round}");
                    let log = pod
                        .run(&id, &format!("echo {id}; sleep 0.0{round}; exit {worker}"))
                        .await;
                    let told = pod.exec(&id, &["true"]).await;
                    // It may have ended before.
                    assert!(told.is_err() || matches!(told.unwrap().2, 0 | 137));
                    assert_eq!(pod.wait(&id).await.exit_code, worker);
                    assert!(fs::read_to_string(log).unwrap().ends_with(&format!(" F {id}\n")));
                    pod.call(pod.client.delete_container(&id)).await.unwrap();
                }
            });
        }
        while let Some(done) = workers.join_next().await {
            done.unwrap();
        }
        assert!(pod.call(pod.client.state()).await.unwrap().containers.is_empty());
        std::sync::Arc::into_inner(pod).unwrap()
    });
}
