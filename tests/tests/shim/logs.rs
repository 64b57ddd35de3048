//! Log files.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use coracle_shim_api::Code;
use coracle_shim_api::pod::NamespaceMode;
use coracle_tests::wait::{PATIENCE, wait_until};
use nix::mount::{MsFlags, mount, umount};
use serde_json::json;

use crate::pod::{Pod, spec, with_shim};

/// One entry: stream, whether it ends a line, content.
type Entry = (String, bool, Vec<u8>);

#[test]
fn a_long_line_is_cut_and_nothing_of_it_lost() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let log = pod
            .run(
                "c",
                "head -c 10000000 /dev/zero | tr '\\0' x; echo; printf 'a\\0b\\n'; printf unfinished",
            )
            .await;
        pod.wait("c").await;
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o7777, 0o640);
        let entries = entries(&[&log]);
        let (last, entries) = entries.split_last().unwrap();
        assert_eq!(last, &("stdout".into(), false, b"unfinished".to_vec()));
        let (nul, long) = entries.split_last().unwrap();
        assert_eq!(nul, &("stdout".into(), true, b"a\0b".to_vec()));
        let (end, parts) = long.split_last().unwrap();
        assert!(end.1 && parts.iter().all(|part| !part.1 && part.2.len() == 16384));
        assert_eq!(long.iter().map(|part| part.2.len()).sum::<usize>(), 10_000_000);
        pod
    });
}

#[test]
fn two_fast_writers_lose_nothing_and_neither_starves() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let log = pod.run("c", "seq 1 700000 & seq 1 700000 >&2; wait").await;
        let state = pod.wait("c").await;
        assert_eq!((state.exit_code, state.dropped_log_lines), (0, 0));
        let entries = entries(&[&log]);
        assert!(fs::metadata(&log).unwrap().len() > 2 * 10_000_000);
        for stream in ["stdout", "stderr"] {
            let numbers = entries
                .iter()
                .filter(|entry| entry.0 == stream)
                .map(|entry| number(&entry.2));
            assert!(numbers.eq(1..=700_000), "{stream} is not complete and in order");
        }
        pod
    });
}

#[test]
fn a_log_reopened_under_load_has_every_line_once() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let log = pod
            .run(
                "c",
                "seq 1 400000; until [ -e /tmp/go ]; do sleep 0.01; done; echo 400001",
            )
            .await;
        let mut files = Vec::new();
        for turn in 0..10 {
            let old = log.with_extension(turn.to_string());
            fs::rename(&log, &old).unwrap();
            pod.call(pod.client.reopen_log("c")).await.unwrap();
            assert!(log.exists(), "the new file exists on return");
            files.push(old);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(pod.exec("c", &["touch", "/tmp/go"]).await.unwrap().2, 0);
        pod.wait("c").await;
        files.push(log.clone());
        let entries = entries(&files.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        assert!(
            entries.iter().map(|entry| number(&entry.2)).eq(1..=400_001),
            "lines are missing or twice there"
        );
        let error = pod.call(pod.client.reopen_log("c")).await.unwrap_err();
        assert!(error.is(Code::FAILED_PRECONDITION), "{error}");
        pod
    });
}

#[test]
fn a_full_disk_drops_lines_but_never_blocks_the_container() {
    with_shim(|pod| async move {
        let small = pod.scratch().join("logs/of pod");
        fs::create_dir_all(&small).unwrap();
        // The shim shares this mount namespace.
        mount(
            Some("small"),
            &small,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=64k"),
        )
        .unwrap();
        pod.start_pod().await;
        let log = pod
            .run(
                "c",
                "seq 1 200000; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo after",
            )
            .await;
        let dropped =
            async |pod: &Pod| pod.call(pod.client.state()).await.unwrap().containers[0].dropped_log_lines;
        let end = Instant::now() + PATIENCE;
        while dropped(&pod).await < 100_000 {
            assert!(Instant::now() < end, "the container is blocked");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        mount(
            None::<&str>,
            &small,
            None::<&str>,
            MsFlags::MS_REMOUNT,
            Some("size=50m"),
        )
        .unwrap();
        assert_eq!(pod.exec("c", &["touch", "/tmp/go"]).await.unwrap().2, 0);
        let state = pod.wait("c").await;
        let entries = entries(&[&log]);
        assert_eq!(entries.last().unwrap().2, b"after");
        assert_eq!(entries.len() as u64 + state.dropped_log_lines, 200_001);
        pod.call(pod.client.delete_container("c")).await.unwrap();
        umount(&small).unwrap();
        pod
    });
}

#[test]
fn a_pipe_held_open_by_another_process_delays_the_end_only_so_long() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        // It writes as long as it can, so that some of it comes after the container's end.
        let hold = "until [ -s /dev/shm/pid ]; do sleep 0.01; done; exec > /proc/$(cat /dev/shm/pid)/fd/1; \
                    touch /dev/shm/held; while sleep 0.05; do echo from the holder; done";
        pod.run("holder", hold).await;
        let begun = Instant::now();
        let log = pod
            .run(
                "c",
                "echo $$ > /dev/shm/pid; until [ -e /dev/shm/held ]; do sleep 0.01; done; echo own",
            )
            .await;
        pod.wait("c").await;
        assert!(begun.elapsed() >= Duration::from_secs(1), "nobody held the pipe");
        assert!(begun.elapsed() < PATIENCE);
        let lines: Vec<_> = entries(&[&log]).into_iter().map(|entry| entry.2).collect();
        let own = lines.iter().position(|line| line == b"own").unwrap();
        assert!(lines[own + 1..].contains(&b"from the holder".to_vec()));
        pod
    });
}

#[test]
fn a_terminal_has_both_streams_in_one() {
    with_shim(|pod| async move {
        pod.start_pod().await;
        let mut config = spec(
            &["/bin/sh", "-c", "tty; echo error >&2; stty size"],
            &format!("{}/pod/c", pod.cgroup),
        );
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 33, "width": 111});
        let (request, log) = pod.container_of("c", &config);
        pod.call(pod.client.create_container(&request)).await.unwrap();
        pod.call(pod.client.start_container("c")).await.unwrap();
        assert_eq!(pod.wait("c").await.exit_code, 0);
        let lines: Vec<_> = entries(&[&log])
            .into_iter()
            .map(|entry| (entry.0, String::from_utf8(entry.2).unwrap()))
            .collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].1.starts_with("/dev/"), "{lines:?}");
        assert_eq!(
            lines[1..],
            [
                ("stdout".into(), "error".into()),
                ("stdout".into(), "33 111".into())
            ]
        );
        pod
    });
}

#[test]
fn output_goes_on_while_nobody_is_connected() {
    with_shim(|mut pod| async move {
        let mut request = pod.request();
        request.pid = NamespaceMode::NAMESPACE_MODE_CONTAINER.into();
        pod.call(pod.client.start_pod(&request)).await.unwrap();
        let log = pod
            .run(
                "c",
                "while [ ! -e /tmp/go ]; do sleep 0.01; done; seq 1 700000; echo end",
            )
            .await;
        assert_eq!(pod.exec("c", &["touch", "/tmp/go"]).await.unwrap().2, 0);
        pod.reconnect(Duration::from_millis(20), || {
            wait_until("the log to be complete", || tail(&log) == b" F end\n");
        })
        .await;
        assert_eq!(entries(&[&log]).len(), 700_001);
        assert_eq!(pod.wait("c").await.exit_code, 0);
        pod
    });
}

/// The last bytes of a file, as long as it has that many.
fn tail(path: &Path) -> Vec<u8> {
    let mut file = fs::File::open(path).unwrap();
    let mut text = Vec::new();
    if file.seek(SeekFrom::End(-7)).is_ok() {
        file.read_to_end(&mut text).unwrap();
    }
    text
}

fn number(content: &[u8]) -> u32 {
    std::str::from_utf8(content).unwrap().parse().unwrap()
}

/// Parses log files strictly.
fn entries(files: &[&Path]) -> Vec<Entry> {
    let bytes: Vec<u8> = files.iter().flat_map(|file| fs::read(file).unwrap()).collect();
    let lines = bytes.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
    lines.map(entry).collect()
}

fn entry(line: &[u8]) -> Entry {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut next = || {
        parts
            .next()
            .unwrap_or_else(|| panic!("not a log line: {}", String::from_utf8_lossy(line)))
    };
    let (time, stream, tag, content) = (next(), next(), next(), next());
    // 2026-11-21T10:00:00.000000000Z
    assert!(
        time.len() == 30 && time[10] == b'T' && time[29] == b'Z',
        "{}",
        String::from_utf8_lossy(line)
    );
    (
        String::from_utf8(stream.to_vec()).unwrap(),
        tag == b"F",
        content.to_vec(),
    )
}
