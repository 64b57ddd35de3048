//! Commands in containers.

use std::fs;
use std::time::{Duration, Instant};

use coracle_shim_api::Code;
use coracle_shim_api::pod::NamespaceMode;
use coracle_tests::cgroup;
use coracle_tests::wait::{PATIENCE, wait_until};

use crate::pod::{Pod, exec_request, with_shim};

#[test]
fn output_and_exit_of_a_command_arrive() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        pod.run("c", "sleep 1000").await;
        let script = "echo out; echo err >&2; hostname; exit 7";
        let (out, err, code) = pod.exec("c", &["/bin/sh", "-c", script]).await.unwrap();
        assert_eq!(
            (out.as_slice(), err.as_slice(), code),
            (&b"out\nthe-pod\n"[..], &b"err\n"[..], 7)
        );
        let killed = pod.exec("c", &["/bin/sh", "-c", "kill -9 $$"]).await.unwrap();
        assert_eq!(killed.2, 137);
        let big = pod
            .exec("c", &["dd", "if=/dev/zero", "bs=1000000", "count=20"])
            .await
            .unwrap();
        assert_eq!((big.0.len(), big.2), (16 << 20, 0));
        pod
    });
}

#[test]
fn a_command_that_cannot_run_says_why() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let (request, _) = pod.container("c", "sleep 1000");
        pod.call(pod.client.create_container(&request)).await.unwrap();
        let error = pod.exec("c", &["true"]).await.unwrap_err();
        assert!(error.is(Code::FAILED_PRECONDITION), "{error}");
        pod.call(pod.client.start_container("c")).await.unwrap();
        let error = pod.exec("c", &["no-such-program"]).await.unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
        let error = pod.exec("nobody", &["true"]).await.unwrap_err();
        assert!(error.is(Code::NOT_FOUND), "{error}");
        let mut request = exec_request("c", &["true"]);
        request.process = b"{".to_vec();
        let error = pod
            .call(async { pod.client.exec(&request).await?.next().await })
            .await
            .unwrap_err();
        assert!(error.is(Code::INVALID_ARGUMENT), "{error}");
        pod
    });
}

#[test]
fn a_command_out_of_time_ends_with_all_it_started() {
    with_shim(|pod| async move {
        start(&pod).await;
        let mut request = exec_request("c", &["/bin/sh", "-c", "sleep 2001 & (sleep 2002 &); sleep 2003"]);
        request.timeout_ms = 300;
        let begun = Instant::now();
        let error = pod
            .call(async {
                let mut exec = pod.client.exec(&request).await?;
                while exec.next().await?.is_some() {}
                Ok(())
            })
            .await
            .unwrap_err();
        assert!(error.is(Code::DEADLINE_EXCEEDED), "{error}");
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        wait_until("the command's processes to end", || {
            !["2001", "2002", "2003"]
                .iter()
                .any(|argument| runs(&pod, argument))
        });
        assert!(runs(&pod, "1999"), "the container itself is untouched");
        pod
    });
}

#[test]
fn a_command_ends_when_its_caller_goes() {
    with_shim(|pod| async move {
        start(&pod).await;
        let mut exec = pod
            .client
            .exec(&exec_request(
                "c",
                &["/bin/sh", "-c", "echo on; sleep 2011; true"],
            ))
            .await
            .unwrap();
        assert_eq!(exec.next().await.unwrap().unwrap().stdout, b"on\n");
        wait_until("the command to get going", || runs(&pod, "2011"));
        drop(exec);
        tokio::time::sleep(Duration::from_millis(1)).await;
        wait_until("the command to end", || !runs(&pod, "2011"));
        pod.call(pod.client.state()).await.unwrap();
        pod
    });
}

#[test]
fn a_process_that_a_command_leaves_behind_delays_its_answer_only_so_long() {
    with_shim(|pod| async move {
        start(&pod).await;
        let begun = Instant::now();
        let (out, _, code) = pod
            .exec("c", &["/bin/sh", "-c", "sleep 2021 & echo done"])
            .await
            .unwrap();
        assert_eq!((out.as_slice(), code), (&b"done\n"[..], 0));
        assert!(begun.elapsed() < PATIENCE);
        wait_until("what a command leaves behind on purpose to live on", || {
            runs(&pod, "2021")
        });
        pod
    });
}

#[test]
fn a_caller_that_is_slow_gets_all_output() {
    with_shim(|pod| async move {
        start(&pod).await;
        let mut execs = Vec::new();
        // Some of these end while what they have written is still on its way, in pipes and sockets that are full.
        for kib in (100..400).step_by(20) {
            let script = format!("dd if=/dev/zero bs=1024 count={kib} 2>/dev/null");
            let request = exec_request("c", &["/bin/sh", "-c", &script]);
            execs.push((kib, pod.client.exec(&request).await.unwrap()));
        }
        // The whole thread stands still, longer than the shim listens to the silence of a pipe.
        std::thread::sleep(Duration::from_millis(2500));
        for (kib, mut exec) in execs {
            let mut got = 0;
            while let Some(piece) = exec.next().await.unwrap() {
                got += piece.stdout.len();
            }
            assert_eq!(got, kib * 1024);
        }
        pod
    });
}

async fn start(pod: &Pod) {
    let mut request = pod.request();
    request.pid = NamespaceMode::NAMESPACE_MODE_CONTAINER.into();
    pod.call(pod.client.start_pod(&request)).await.unwrap();
    pod.run("c", "sleep 1999").await;
    wait_until("the container to get going", || runs(pod, "1999"));
}

/// Whether a `sleep` with this argument runs in the container.
fn runs(pod: &Pod, argument: &str) -> bool {
    let wanted = format!("sleep\0{argument}\0");
    let lists = cgroup::directories(&format!("{}/pod/c", pod.cgroup));
    let lists = lists
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
    let pids: Vec<String> = lists
        .flat_map(|list| list.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    pids.iter()
        .filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok())
        .any(|line| line == wanted.as_bytes())
}
