//! A log is rotated while its container writes: nothing is lost, nothing doubled.

use std::fs;
use std::time::Duration;

use coracle_integration::cri::v1::{ReopenContainerLogRequest, StopContainerRequest};
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods, wait};
use tonic::Code;

const LINES: usize = 300_000;

#[test]
fn a_log_is_rotated_while_its_container_writes() {
    node::run("log-rotation", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::sandbox("rotated", &node.folder("logs"));
        let pod = cri.run(&config);
        let count = LINES.to_string();
        let words = ["write-lines", &count, "100", "--", "sleep", "1000"];
        let writer = cri.launch(&pod, &config, &pods::container("writer", &words));
        let log = node.folder("logs").join("rotated/writer.log");
        let rotated = log.with_extension("log.1");
        let length = |path| fs::metadata(path).map_or(0, |file| file.len());
        wait::until_true(wait::SOON, "the container writes", || length(&log) > 100_000);

        fs::rename(&log, &rotated).unwrap();
        let reopen = || {
            cri.reopen_container_log(ReopenContainerLogRequest {
                container_id: writer.clone(),
            })
        };
        reopen().unwrap();
        assert!(log.exists(), "the new file is there when the request returns");
        let at_return = length(&rotated);

        let last = format!("line {} ", LINES - 1);
        wait::until_true(Duration::from_secs(60), "the last line", || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains(&last))
        });
        assert_eq!(length(&rotated), at_return, "the old file grows no more");
        let numbers: Vec<usize> = [&rotated, &log]
            .iter()
            .flat_map(|path| numbers(&fs::read_to_string(path).unwrap()))
            .collect();
        assert!(numbers.iter().copied().eq(0..LINES), "{} lines", numbers.len());

        cri.stop_container(StopContainerRequest {
            container_id: writer.clone(),
            timeout: 1,
        })
        .unwrap();
        assert_eq!(reopen().unwrap_err().code(), Code::FailedPrecondition);
        cri.discard(&pod);
        // Who renamed it removes it.
        fs::remove_file(rotated).unwrap();
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

/// The numbers of the lines of a log file, in order. Every line is whole: `TIME stdout F line NUMBER xxx...`.
fn numbers(log: &str) -> Vec<usize> {
    log.lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words[1..4], ["stdout", "F", "line"], "{line}");
            words[4].parse().unwrap()
        })
        .collect()
}
