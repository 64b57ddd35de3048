//! What a pod's shim costs.

use std::fs;
use std::time::{Duration, Instant};

use crate::pod::{Pod, with_shim};

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
        let pss: Vec<u64> = pods.iter().map(|pod| kib(pod.shim.id(), "Pss:")).collect();
        let private: Vec<u64> = pods
            .iter()
            .map(|pod| kib(pod.shim.id(), "Private_Dirty:"))
            .collect();
        spent.sort_unstable();
        let (all, start_pod): (Duration, Duration) = spent[spent.len() / 2];
        println!("PSS {pss:?} KiB, of it private and dirty {private:?}");
        println!(
            "median: from its start to its first answer {:?}",
            answered[answered.len() / 2]
        );
        println!("median: StartPod to StartContainer {all:?}, of it StartPod {start_pod:?}");
        let worst = pss.iter().max().unwrap();
        assert!(*worst <= 1024, "{worst} KiB");
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
