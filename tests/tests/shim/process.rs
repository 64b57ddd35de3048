//! What a container's processes find, and what the shim keeps.

use std::fs;
use std::time::Duration;

use coracle_tests::wait::{wait_for, wait_until};
use serde_json::json;

use crate::pod::{exec_request, mounts, spec, with_shim};

#[test]
fn no_signal_is_ignored_or_blocked_and_no_descriptor_leaks() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let script = "grep Sig[IB] /proc/self/status; ls /proc/self/fd/; sleep 1000";
        let log = pod.run("c", script).await;
        // The directory that ls reads is its last descriptor.
        let first = wait_for("the log", || {
            let text = fs::read_to_string(&log).unwrap();
            text.ends_with("F 3\n").then_some(text)
        });
        let look = [
            "/bin/sh",
            "-c",
            "grep Sig[IB] /proc/self/status; ls /proc/self/fd/",
        ];
        let exec = String::from_utf8(pod.exec("c", &look).await.unwrap().0).unwrap();
        for text in [first, exec] {
            for set in ["SigBlk:\t", "SigIgn:\t"] {
                let mask = text.lines().find_map(|line| line.split_once(set)).unwrap().1;
                // Not 32 and 33: glibc's posix_spawn, which started the shim here, has them ignored.
                let mask = u64::from_str_radix(mask, 16).unwrap() & !0x1_8000_0000;
                assert_eq!(mask, 0, "{text}");
            }
            // 3 is the directory that ls reads.
            let numbers: String = text
                .lines()
                .filter_map(|line| line.split(' ').next_back())
                .map(|last| last.to_owned() + " ")
                .collect();
            assert!(numbers.ends_with("0 1 2 3 "), "{text}");
        }
        pod
    });
}

#[test]
fn a_user_can_open_its_own_standard_streams() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let mut config = spec(
            &["/bin/sh", "-c", "echo by name > /dev/stdout; id -u; sleep 1000"],
            &format!("{}/pod/c", pod.cgroup),
        );
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["capabilities"] = json!({});
        let (request, log) = pod.container_of("c", &config);
        pod.call(pod.client.create_container(&request)).await.unwrap();
        pod.call(pod.client.start_container("c")).await.unwrap();
        wait_until("the log", || {
            fs::read_to_string(&log).unwrap().contains("F 1000\n")
        });
        assert!(fs::read_to_string(&log).unwrap().contains("F by name\n"));
        let mut request = exec_request("c", &["/bin/sh", "-c", "echo error > /dev/stderr"]);
        let mut process: serde_json::Value = serde_json::from_slice(&request.process).unwrap();
        process["user"] = json!({"uid": 1000, "gid": 1000});
        process["capabilities"] = json!({});
        request.process = serde_json::to_vec(&process).unwrap();
        let mut exec = pod.client.exec(&request).await.unwrap();
        assert_eq!(exec.next().await.unwrap().unwrap().stderr, b"error\n");
        drop(exec);
        pod
    });
}

/// The shim once fell over here: the command has ended, its output is still held open by what it left behind, and the
/// caller goes.
#[test]
fn a_caller_that_goes_after_the_commands_end_harms_nobody() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        pod.run("c", "sleep 1000").await;
        for _ in 0..3 {
            let request = exec_request("c", &["/bin/sh", "-c", "sleep 2 & echo done"]);
            let mut exec = pod.client.exec(&request).await.unwrap();
            assert_eq!(exec.next().await.unwrap().unwrap().stdout, b"done\n");
            std::thread::sleep(Duration::from_millis(50));
            drop(exec);
        }
        assert_eq!(
            pod.exec("c", &["/bin/echo", "still here"]).await.unwrap().0,
            b"still here\n"
        );
        pod
    });
}

#[test]
fn standard_input_is_held_open_or_empty() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        pod.run("empty", "cat; exit 4").await;
        assert_eq!(pod.wait("empty").await.exit_code, 4);
        let (mut request, _) = pod.container("open", "cat; exit 4");
        request.stdin = true;
        pod.call(pod.client.create_container(&request)).await.unwrap();
        pod.call(pod.client.start_container("open")).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_millis(200), pod.client.wait_container("open")).await;
        assert!(ended.is_err(), "cat met the end of its input");
        pod
    });
}

#[test]
fn nothing_waits_for_a_slow_hook_and_all_kinds_run() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let seen = pod.scratch().join("hooks");
        let hook = |name: &str, first: &str| {
            let script = format!("{first} cat > {0}.{name}; echo {name} >> {0}", seen.display());
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
        };
        let go = pod.scratch().join("go");
        let wait_to_go = format!("until [ -e {} ]; do sleep 0.01; done;", go.display());
        let mut config = spec(&["/bin/true"], &format!("{}/pod/c", pod.cgroup));
        config["hooks"] = json!({
            "createRuntime": hook("createRuntime", &wait_to_go),
            "poststart": hook("poststart", ""),
            "poststop": hook("poststop", ""),
        });
        let (request, _) = pod.container_of("c", &config);
        let create = async {
            pod.client.create_container(&request).await.unwrap();
            pod.client.start_container("c").await.unwrap();
        };
        let others = async {
            // Would one of them wait for the hook, the hook would wait for ever.
            for _ in 0..20 {
                pod.call(pod.client.state()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            fs::write(&go, "").unwrap();
        };
        tokio::join!(create, others);
        pod.wait("c").await;
        pod.call(pod.client.delete_container("c")).await.unwrap();
        assert_eq!(
            fs::read_to_string(&seen).unwrap(),
            "createRuntime\npoststart\npoststop\n"
        );
        let state: serde_json::Value =
            serde_json::from_slice(&fs::read(seen.with_extension("createRuntime")).unwrap()).unwrap();
        assert_eq!(state["bundle"], json!(pod.dir.join("c")));
        pod
    });
}

#[test]
fn a_container_deleted_while_its_hook_runs_is_given_up() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let mut config = spec(&["/bin/true"], &format!("{}/pod/c", pod.cgroup));
        let begun = pod.scratch().join("begun");
        let script = format!("touch {}; exec sleep 3001", begun.display());
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
        let (request, _) = pod.container_of("c", &config);
        let create = pod.client.create_container(&request);
        let delete = async {
            while !begun.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            pod.client.delete_container("c").await
        };
        let both = pod.call(async { Ok(tokio::join!(create, delete)) });
        let (created, deleted) = both.await.unwrap();
        assert!(created.is_err());
        deleted.unwrap();
        assert!(pod.call(pod.client.state()).await.unwrap().containers.is_empty());
        pod
    });
}

#[test]
fn the_shim_keeps_no_descriptor_of_what_is_gone() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let descriptors = || {
            fs::read_dir(format!("/proc/{}/fd", pod.shim.id()))
                .unwrap()
                .count()
        };
        // The first use of some things makes others that stay.
        pod.run("first", "true").await;
        pod.wait("first").await;
        pod.call(pod.client.delete_container("first")).await.unwrap();
        let before = descriptors();
        for _ in 0..5 {
            let (request, _) = pod.container("c", "sleep 1000");
            pod.call(pod.client.create_container(&request)).await.unwrap();
            pod.call(pod.client.start_container("c")).await.unwrap();
            for _ in 0..5 {
                pod.exec("c", &["true"]).await.unwrap();
            }
            pod.call(pod.client.delete_container("c")).await.unwrap();
            fs::remove_dir_all(pod.dir.join("c")).unwrap();
        }
        // At the first look not everything was closed, perhaps.
        wait_until("descriptors to be closed", || descriptors() <= before);
        pod
    });
}

#[test]
fn a_killed_shim_leaves_one_mount_and_what_its_cgroup_holds() {
    with_shim(|mut pod| async move {
        let before = mounts();
        pod.start_pod().await;
        for id in ["one", "two", "three"] {
            pod.run(id, "sleep 1000").await;
        }
        assert_eq!(mounts().lines().count(), before.lines().count() + 1);
        pod.shim.kill().unwrap();
        pod.shim.wait().unwrap();
        assert_eq!(mounts().lines().count(), before.lines().count() + 1);
        // What the daemon does then.
        pod.end_by_cgroup();
        nix::mount::umount(&pod.netns).unwrap();
        fs::remove_file(&pod.netns).unwrap();
        pod.restart().await
    });
}
