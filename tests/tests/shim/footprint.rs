//! What a pod's shim costs.

use std::fs;
use std::time::{Duration, Instant};

use crate::pod::{Pod, with_shim};

#[test]
fn logs_and_commands_leave_no_memory_behind() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        pod.run("c", "seq 1 300000; sleep 1000").await;
        let use_it = async || {
            for _ in 0..50 {
                pod.exec("c", &["true"]).await.unwrap();
            }
            let big = pod
                .exec("c", &["dd", "if=/dev/zero", "bs=1000000", "count=20"])
                .await
                .unwrap();
            assert_eq!(big.0.len(), 16 << 20);
            // Not "Private_Dirty": pages of a program file that was just built count there until they are on the disk.
            kib(pod.shim.id(), "Anonymous:")
        };
        let first = use_it().await;
        for _ in 0..5 {
            use_it().await;
        }
        let last = use_it().await;
        println!("anonymous memory: {first} KiB at first, {last} KiB in the end");
        assert!(
            last <= first + 128 && last <= 1024,
            "{first} KiB became {last} KiB"
        );
        pod
    });
}

#[test]
fn one_of_twenty_shims_costs_at_most_a_megabyte() {
    with_shim(|pod| async move {
        let mut pods = vec![pod];
        let mut answered = Vec::new();
        while pods.len() < 20 {
            let pod = Pod::spawn(&[]).await;
            pod.call(pod.client.state()).await.unwrap();
            answered.push(pod.spawned.elapsed());
            pods.push(pod);
        }
        answered.sort_unstable();
        let mut spent = Vec::new();
        for pod in &pods {
            let begun = Instant::now();
            pod.start_pod().await;
            let started = begun.elapsed();
            pod.run("c", "echo hello; sleep 1000").await;
            spent.push((begun.elapsed(), started));
            assert_eq!(pod.exec("c", &["true"]).await.unwrap().2, 0);
        }
        let mut busy: Vec<u64> = pods.iter().map(|pod| on_cpu_us(pod.shim.id())).collect();
        busy.sort_unstable();
        println!(
            "median: CPU time of the shim itself for all that {} us",
            busy[busy.len() / 2]
        );
        let pss: Vec<u64> = pods.iter().map(|pod| kib(pod.shim.id(), "Pss:")).collect();
        let private: Vec<u64> = pods.iter().map(|pod| kib(pod.shim.id(), "Anonymous:")).collect();
        spent.sort_unstable();
        let (all, start_pod): (Duration, Duration) = spent[spent.len() / 2];
        println!("PSS {pss:?} KiB, of it anonymous {private:?}");
        println!(
            "median: from its start to its first answer {:?}",
            answered[answered.len() / 2]
        );
        println!("median: StartPod to StartContainer {all:?}, of it StartPod {start_pod:?}");
        let worst = pss.iter().max().unwrap();
        assert!(*worst <= 1024, "{worst} KiB");
        let init = pods[10].call(pods[10].client.state()).await.unwrap().init_pid;
        let init = kib(init, "Pss:");
        println!("PSS of a pod's init: {init} KiB");
        assert!(init <= 400, "{init} KiB");
        let first = pods.remove(0);
        for mut pod in pods {
            pod.call(pod.client.shutdown()).await.unwrap();
            pod.left_nothing_but_mounts();
        }
        first
    });
}

fn kib(pid: u32, field: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Microseconds on a processor so far (proc_pid_schedstat(5)); unlike the clock it does not count other programs.
fn on_cpu_us(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    stat.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1000
}
