//! Hooks: when they run, where, with what, and what their failure means.

use coracle_tests::bundle::Bundle;
use coracle_tests::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};
use std::path::Path;

/// A hook that runs a script of the host's shell.
fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]})
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn they_run_in_order_with_the_state_of_the_moment() {
    let mut bundle = Bundle::new("echo payload >> /log");
    let log = bundle.root("log");
    let outside = |name: &str| {
        hook(&format!(
            "echo {name} $(grep -o '\"status\":\"[a-z]*\"' | cut -d'\"' -f4) >> {}",
            log.display()
        ))
    };
    // Within the container the host's paths are gone.
    let mut inside =
        hook("echo startContainer $(grep -o '\"status\":\"[a-z]*\"' | head -c 18 | grep -o created) >> /log");
    inside["env"] = json!(["PATH=/bin"]);
    bundle.spec["hooks"] = json!({
        "prestart": [outside("prestart")],
        "createRuntime": [outside("createRuntime"), outside("createRuntime2")],
        "createContainer": [outside("createContainer")],
        "startContainer": [inside],
        "poststart": [outside("poststart")],
        "poststop": [outside("poststop")]
    });
    bundle.spec["process"]["args"] = json!([
        "/bin/sh",
        "-c",
        "while ! grep -q poststart /log; do sleep 0.01; done; echo payload >> /log"
    ]);
    bundle.run();
    let expected = [
        "prestart creating",
        "createRuntime creating",
        "createRuntime2 creating",
        "createContainer creating",
        "startContainer created",
        "poststart running",
        "payload",
        "poststop stopped",
    ];
    assert_eq!(lines(&log), expected);
}

#[test]
fn a_poststart_hook_that_fails_stops_the_container() {
    let mut bundle = Bundle::new("exec sleep 1000");
    let log = bundle.path("log");
    let poststop = hook(&format!("echo poststop >> {}", log.display()));
    bundle.spec["hooks"] = json!({"poststart": [{"path": "/bin/false"}], "poststop": [poststop]});
    bundle.create();
    let text = bundle.fails(&["start"]);
    assert!(text.contains("hooks.poststart[0] /bin/false"), "{text}");
    assert_eq!(bundle.state()["status"], "stopped");
    bundle.ok(&["delete"]);
    assert_eq!(lines(&log), ["poststop"]);
}

#[test]
fn create_start_and_delete_run_theirs() {
    let mut bundle = Bundle::new("true");
    let log = bundle.path("log");
    let append = |name: &str| hook(&format!("echo {name} >> {}", log.display()));
    bundle.spec["hooks"] = json!({"createRuntime": [append("create")], "poststart": [append("start")], "poststop": [append("delete")]});
    bundle.create();
    assert_eq!(lines(&log), ["create"]);
    bundle.ok(&["start"]);
    assert_eq!(lines(&log), ["create", "start"]);
    bundle.ok(&["delete", "-f"]);
    assert_eq!(lines(&log), ["create", "start", "delete"]);
}

#[test]
fn the_root_is_seen_at_its_path_in_the_containers_namespace() {
    let mut bundle = Bundle::new("cat /from-hook /from-container-hook");
    let root = bundle.root("");
    // As CDI's hooks do: enter the mount namespace of the pid in the state, go by root.path of the bundle.
    let enter = format!(
        "pid=$(grep -o '\"pid\":[0-9]*' | cut -d: -f2); nsenter --mount=/proc/$pid/ns/mnt sh -c 'grep -q \" {root}/proc \" /proc/self/mountinfo && echo runtime > {root}/from-hook'",
        root = root.display().to_string().trim_end_matches('/')
    );
    let inside = format!(
        "test -e {root}/proc/version && echo container > {root}/from-container-hook",
        root = root.display()
    );
    bundle.spec["hooks"] = json!({"createRuntime": [hook(&enter)], "createContainer": [hook(&inside)]});
    assert_eq!(bundle.run(), "runtime\ncontainer\n");
}

#[test]
fn the_environment_is_as_listed_and_nothing_is_inherited() {
    let mut bundle = Bundle::new("true");
    let log = bundle.path("log");
    let script = format!(
        // No other process, no pipe and no redirection where descriptors are listed: the shell would have some more for it.
        "exec > {}; env | grep -v -e ^PWD= -e ^_= -e ^SHLVL=; for fd in /proc/$$/fd/*; do echo ${{fd##*/}}; done",
        log.display()
    );
    let mut given = hook(&script);
    given["env"] = json!(["ONE=1", "PATH=/bin:/usr/bin"]);
    bundle.spec["hooks"] = json!({ "createRuntime": [given] });
    bundle.run();
    let mut seen = lines(&log);
    seen.sort();
    // The last is the directory that the shell reads.
    assert_eq!(seen, ["0", "1", "2", "3", "ONE=1", "PATH=/bin:/usr/bin"]);
}

#[test]
fn a_hook_that_fails_says_which_and_what_it_said() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let mut bundle = Bundle::new("true");
        let mut failing = hook("echo the reason >&2; exit 3");
        failing["env"] = json!(["PATH=/bin"]);
        bundle.spec["hooks"] = json!({ kind: [hook("true"), failing] });
        bundle.spec["hooks"][kind][0]["env"] = json!(["PATH=/bin"]);
        let error = bundle.fails(&["run"]);
        assert!(
            error.contains(&format!("hooks.{kind}[1] /bin/sh exited with 3: the reason")),
            "{error}"
        );
        bundle.assert_nothing_left();
    }
    let mut bundle = Bundle::new("true");
    bundle.spec["hooks"] = json!({"createRuntime": [{"path": "/no/such/hook"}]});
    let error = bundle.fails(&["run"]);
    assert!(
        error.contains("starting hooks.createRuntime[0] /no/such/hook"),
        "{error}"
    );
}

#[test]
fn a_failing_poststop_hook_does_not_stop_the_removal() {
    let mut bundle = Bundle::new("true");
    bundle.spec["hooks"] = json!({"poststop": [hook("exit 1")]});
    let output = bundle.call(&["run"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.all().contains("level=warning"), "{}", output.all());
    bundle.assert_nothing_left();
}

#[test]
fn a_hook_that_takes_too_long_ends_with_all_it_started() {
    let mut bundle = Bundle::new("true");
    let pids = bundle.path("pids");
    let mut slow = hook(&format!(
        "sleep 1000 & echo $! > {0}; echo $$ >> {0}; sleep 1000",
        pids.display()
    ));
    slow["timeout"] = json!(1);
    bundle.spec["hooks"] = json!({ "createRuntime": [slow] });
    let begin = std::time::Instant::now();
    let error = bundle.fails(&["run"]);
    assert!(begin.elapsed() < PATIENCE);
    assert!(error.contains("took longer than its timeout of 1 s"), "{error}");
    for pid in lines(&pids) {
        let status = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // Whoever adopted it may not have collected it yet.
        wait_until("its end", || {
            status().is_empty() || status().contains("State:\tZ")
        });
    }
    bundle.assert_nothing_left();
}

#[test]
fn all_poststop_hooks_run_whatever_becomes_of_the_others() {
    let mut bundle = Bundle::new("true");
    let log = bundle.path("log");
    let append = |name: &str, code: u8| hook(&format!("echo {name} >> {}; exit {code}", log.display()));
    let missing = json!({"path": "/no/such/hook"});
    bundle.spec["hooks"] =
        json!({"poststop": [missing, append("first", 1), append("second", 2), append("third", 0)]});
    let said = bundle.call(&["run"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lines(&log), ["first", "second", "third"]);
    for failed in ["poststop[0]", "poststop[1]", "poststop[2]"] {
        assert!(said.err.contains(failed), "{said:?}");
    }
}

#[test]
fn what_hooks_of_a_failing_creation_have_made_the_poststop_hooks_undo() {
    for stage in ["createRuntime", "createContainer"] {
        let mut bundle = Bundle::new("true");
        let log = bundle.path("log");
        let append = |name: &str, code: u8| hook(&format!("echo {name} >> {}; exit {code}", log.display()));
        bundle.spec["hooks"] = json!({"poststop": [append("cleanup", 0)]});
        bundle.spec["hooks"][stage] = json!([append("add", 0), append("broken", 1)]);
        assert!(bundle.fails(&["create"]).contains(&format!("hooks.{stage}[1]")));
        assert_eq!(lines(&log), ["add", "broken", "cleanup"]);
    }
}
