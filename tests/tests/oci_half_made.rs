//! Containers whose creator is killed: what it was making is listed, ends with it, and is removed by `delete --force`.

use coracle_tests::bundle::Bundle;
use coracle_tests::wait::wait_until;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;

/// Every system call of `create` once, killed as it enters it (strace's injection).
#[test]
fn a_creator_killed_at_any_system_call_leaves_nothing_that_goes_on() {
    let bundle = Bundle::new("sleep 1000");
    let calls = system_calls(&bundle);
    assert!(calls.values().sum::<u32>() > 50, "{calls:?}");
    let mut killed = 0;
    for (name, count) in calls {
        for when in 1..=count {
            let inject = format!("inject={name}:signal=KILL:when={when}");
            let status = strace(&["-e", &inject], &bundle).status().unwrap();
            killed += u32::from(status.signal() == Some(SIGKILL));
            assert_half_made_is_removed(&bundle, &format!("{name} {when}"));
        }
    }
    assert!(killed > 50, "{killed}");
}

/// 1,000 creators, 20 at a time, half of them with a payload that is started.
#[test]
fn creators_killed_at_random_leave_nothing_that_goes_on() {
    const AT_A_TIME: usize = 20;
    const ROUNDS: u64 = 50;
    let bundles: Vec<Bundle> = (0..AT_A_TIME).map(|_| Bundle::new("sleep 1000")).collect();
    let whole = time_of_a_creation(&bundles[0]);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for bundle in &bundles {
            let next = &next;
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    kill_after(bundle, moment(number, whole));
                    assert_half_made_is_removed(bundle, &format!("round {number}"));
                }
            });
        }
    });
}

/// Hooks are the steps that take long; what they have started in the container's cgroup ends with it.
#[test]
fn a_creator_killed_during_a_hook_takes_its_container_along() {
    for stage in ["createRuntime", "createContainer"] {
        let mut bundle = Bundle::new("sleep 1000");
        // Without a PID namespace of its own nothing but its cgroup holds the processes of a container together.
        bundle.namespaces(&["mount", "uts"]);
        let said = bundle.path("hook");
        let script = format!("echo $$ > {}; sleep 1000", said.display());
        bundle.spec["hooks"] = json!({stage: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
        let mut creator = create(&bundle).spawn().unwrap();
        wait_until("the hook", || {
            std::fs::read_to_string(&said).is_ok_and(|text| text.ends_with('\n'))
        });
        creator.kill().unwrap();
        creator.wait().unwrap();
        let listed = listed(&bundle);
        assert_eq!(listed["status"], "creating", "{stage}: {listed}");
        assert_eq!(
            listed["bundle"],
            bundle.path("").canonicalize().unwrap().to_str().unwrap()
        );
        let refused = bundle.fails(&["delete"]);
        assert!(refused.contains("creating"), "{refused}");
        assert_half_made_is_removed(&bundle, stage);
        // A hook of the runtime is outside of the container, and nobody's any more.
        let pid = std::fs::read_to_string(&said).unwrap();
        let _ = Command::new("kill")
            .args(["-KILL", pid.trim()])
            .stderr(Stdio::null())
            .status();
    }
}

/// A cgroup that the killed creator had not made yet may be another container's.
#[test]
fn what_another_container_runs_in_the_named_cgroup_is_left_alone() {
    let other = Bundle::new("sleep 1000");
    other.start();
    let mut half = Bundle::new("true");
    half.spec["linux"]["cgroupsPath"] = json!(other.cgroup);
    let dir = half.path("state").join(&half.id);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.json"), half.spec.to_string()).unwrap();
    assert_eq!(listed(&half)["status"], "creating");
    half.ok(&["delete", "--force"]);
    // Nor does a specification that is not sound keep it.
    std::fs::create_dir_all(&dir).unwrap();
    half.spec["linux"]["resources"] = json!({"cpu": {"cpus": "none"}});
    std::fs::write(dir.join("config.json"), half.spec.to_string()).unwrap();
    half.ok(&["delete", "--force"]);
    assert_eq!(other.state()["status"], "running");
    // Its end is told by the other's cgroup too.
    other.ok(&["delete", "--force"]);
}

/// `run` reads its signals, also while there is nothing yet to pass them on to.
#[test]
fn a_request_to_end_ends_a_run_that_waits_for_its_container() {
    let mut bundle = Bundle::new("sleep 1000");
    let said = bundle.path("hook");
    let script = format!("echo > {}; exec sleep 1000", said.display());
    bundle.spec["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    let run = bundle
        .coracle(&["run", &bundle.id])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the hook", || said.exists());
    let begun = Instant::now();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = run.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("SIGTERM"), "{error}");
    bundle.assert_nothing_left();
}

/// Whatever the creator got to: its record if it got that far, and else a container in the making that is left with
/// nothing alive.
fn assert_half_made_is_removed(bundle: &Bundle, when: &str) {
    let listed = listed(bundle);
    let status = listed["status"].as_str().unwrap_or("nothing").to_owned();
    match status.as_str() {
        // The first process may still be on its way out, or wait at its gate as a created one should.
        "created" | "stopped" | "nothing" | "creating" => {}
        other => panic!("{when}: {other}"),
    }
    if status == "creating" && !when.starts_with("create") {
        wait_until("the first process to end with its maker", || {
            processes(bundle).is_empty()
        });
    }
    let deleted = bundle.call(&["delete", "--force"]);
    assert_eq!(deleted.code, 0, "{when}: {status}: {deleted:?}");
    bundle.assert_nothing_left();
}

fn processes(bundle: &Bundle) -> Vec<String> {
    let texts = bundle
        .cgroups()
        .into_iter()
        .map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")));
    texts
        .flatten()
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn listed(bundle: &Bundle) -> Value {
    let rows: Value = serde_json::from_str(&bundle.say(&["list", "--format", "json"]).ok()).unwrap();
    let quiet = bundle.say(&["list", "--quiet"]).ok();
    assert_eq!(rows.as_array().unwrap().len(), quiet.lines().count(), "{rows}");
    rows[0].clone()
}

fn create(bundle: &Bundle) -> Command {
    let mut command = bundle.coracle(&["create", &bundle.id]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn kill_after(bundle: &Bundle, moment: Duration) {
    let mut creator: Child = create(bundle).spawn().unwrap();
    std::thread::sleep(moment);
    creator.kill().unwrap();
    creator.wait().unwrap();
}

fn time_of_a_creation(bundle: &Bundle) -> Duration {
    let begun = Instant::now();
    assert!(create(bundle).status().unwrap().success());
    let whole = begun.elapsed();
    bundle.ok(&["delete", "--force"]);
    whole
}

/// Spread over the time of a creation beside nineteen others; the same ones in every run.
fn moment(number: u64, whole: Duration) -> Duration {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44;
    whole * 10 * u32::try_from(mixed).unwrap() / (1 << 20)
}

/// How often `create` makes each system call before its record is written and after.
fn system_calls(bundle: &Bundle) -> BTreeMap<String, u32> {
    let trace = bundle.path("trace");
    let out = trace.to_str().unwrap();
    let status = strace(&["-o", out], bundle).status().unwrap();
    assert!(status.success());
    bundle.ok(&["delete", "--force"]);
    let mut calls = BTreeMap::new();
    for line in std::fs::read_to_string(&trace).unwrap().lines() {
        let Some((name, _)) = line.split_once('(') else {
            continue;
        };
        if name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            *calls.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    // strace itself has to get the program there, and the last one ends it anyway.
    calls.retain(|name, _| !["execve", "execveat", "exit_group"].contains(&name.as_str()));
    calls
}

/// `create` under strace, which traces the creator alone.
fn strace(options: &[&str], bundle: &Bundle) -> Command {
    let create = create(bundle);
    let mut command = Command::new("strace");
    command.arg("-qq").args(options);
    if !options.contains(&"-o") {
        command.args(["-o", "/dev/null"]);
    }
    command.arg(create.get_program()).args(create.get_args());
    command.current_dir(create.get_current_dir().unwrap());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
