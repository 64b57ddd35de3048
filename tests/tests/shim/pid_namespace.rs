//! The pod's init, seen by its containers (pid mode POD).

use std::fs;
use std::time::Instant;

use coracle_tests::wait::PATIENCE;
use serde_json::json;

use crate::pod::{spec, with_shim};

#[test]
fn a_container_with_default_capabilities_cannot_look_into_the_pods_init() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        pod.run("c", "sleep 1000").await;
        assert_eq!(
            pod.exec("c", &["cat", "/proc/1/comm"]).await.unwrap().0,
            b"coracle-shim\n"
        );
        for attack in [
            "ls /proc/1/root/",
            "cat /proc/1/root/etc/passwd",
            "ls /proc/1/cwd/",
            "cat /proc/1/exe",
            "readlink /proc/1/exe",
            "ls /proc/1/fd/0",
            "cat /proc/1/fd/0",
            "cat /proc/1/mem",
            "cat /proc/1/maps",
            "cat /proc/1/environ",
            "readlink /proc/1/ns/mnt",
            "nsenter -t 1 -m true",
            "echo x > /proc/1/mem",
        ] {
            let (out, err, code) = pod.exec("c", &["/bin/sh", "-c", attack]).await.unwrap();
            let err = String::from_utf8_lossy(&err);
            assert!(
                code != 0 && out.is_empty(),
                "{attack}: {code} {}",
                String::from_utf8_lossy(&out)
            );
            let denied = err.contains("ermission denied") || err.contains("not permitted");
            // readlink of busybox fails without a word.
            let nothing_there = attack.contains("/fd/") && err.contains("No such file");
            assert!(
                denied || nothing_there || attack.starts_with("readlink"),
                "{attack}: {err}"
            );
        }
        let status = String::from_utf8(pod.exec("c", &["cat", "/proc/1/status"]).await.unwrap().0).unwrap();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(
                status.contains(&format!("{set}:\t0000000000000000\n")),
                "{status}"
            );
        }
        pod
    });
}

#[test]
fn even_with_ptrace_the_init_shows_an_empty_root_and_no_host_file() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let script = "echo root $(ls -a /proc/1/root/); touch /proc/1/root/x || echo read-only; echo fds $(ls /proc/1/fd/); \
                      cat /proc/1/root/proc/self/mountinfo || echo none";
        let mut config = spec(&["/bin/sh", "-c", script], &format!("{}/pod/c", pod.cgroup));
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] =
                json!(["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        }
        let (request, log) = pod.container_of("c", &config);
        pod.call(pod.client.create_container(&request)).await.unwrap();
        pod.call(pod.client.start_container("c")).await.unwrap();
        pod.wait("c").await;
        let text = fs::read_to_string(log).unwrap();
        for expected in ["F root . ..\n", "F fds\n", "F read-only\n", "F none\n"] {
            assert!(text.contains(expected), "{text}");
        }
        let links: Vec<_> = text
            .lines()
            .filter(|line| line.contains(" F /") || line.contains(":["))
            .collect();
        assert!(links.iter().all(|line| line.contains("socket:[")), "{text}");
        pod
    });
}

#[test]
fn the_init_reaps_orphans_and_ignores_signals_of_containers() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        pod.run("c", "sleep 1000").await;
        let script = "kill -9 1; kill -15 1; (sleep 0.01 &); (sleep 0.02 &); true";
        assert_eq!(pod.exec("c", &["/bin/sh", "-c", script]).await.unwrap().2, 0);
        let end = Instant::now() + PATIENCE;
        loop {
            let (out, _, code) = pod.exec("c", &["ps"]).await.unwrap();
            assert_eq!(code, 0);
            let out = String::from_utf8(out).unwrap();
            let programs: Vec<_> = out
                .lines()
                .filter_map(|line| line.split_whitespace().nth(2))
                .collect();
            if programs == ["COMMAND", "{coracle-shim}", "sleep", "ps"] {
                break pod;
            }
            assert!(Instant::now() < end, "{out}");
        }
    });
}
