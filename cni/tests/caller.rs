//! The caller against plugins that behave, fail, hang and babble on order.

mod program;

use coracle_cni_protocol::{
    Attachment, CallError, Caller, CniResult, Code, ConfList, ValidAttachment, chain,
};
use program::program;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Logs `NAME COMMAND` and its input, then does what the script says.
fn plugin(dir: &Path, name: &str, script: &str) {
    let log = dir.join("log");
    let text = format!(
        "#!/bin/sh\nLOG={}\nINPUT=$(cat)\necho \"{name} $CNI_COMMAND $INPUT\" >>$LOG\n{script}\n",
        log.display()
    );
    program(&dir.join(name), &text);
}

/// Gives one more interface than it got.
const GOOD: &str = r#"[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$0'"}],"ips":[]}' ; true"#;
const FAILS: &str = r#"echo '{"code":11,"msg":"not now","details":"later"}'; exit 1"#;

fn list(version: &str, kinds: &[&str]) -> ConfList {
    let plugins: Vec<_> = kinds
        .iter()
        .map(|kind| json!({"type": kind, "capabilities": {"portMappings": true, "other": false}, "unknown": [1, {"a": null}]}))
        .collect();
    ConfList::parse(
        json!({"cniVersion": version, "name": "net", "plugins": plugins})
            .to_string()
            .as_bytes(),
    )
    .unwrap()
}

fn attachment() -> Attachment {
    Attachment {
        container_id: "c1".to_owned(),
        netns: Some(PathBuf::from("/run/netns/x")),
        ifname: "eth0".to_owned(),
        args: vec![("A".to_owned(), "b".to_owned())],
        capabilities: json!({"portMappings": [{"hostPort": 1}], "other": 1, "third": 2})
            .as_object()
            .unwrap()
            .clone(),
    }
}

fn log(dir: &Path) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    let _ = std::fs::remove_file(dir.join("log"));
    let split = |line: &str| {
        let at = line.find('{').unwrap();
        (
            line[..at].trim().to_owned(),
            serde_json::from_str(&line[at..]).unwrap(),
        )
    };
    text.lines().map(split).collect()
}

fn names(dir: &Path) -> Vec<String> {
    log(dir).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn each_plugin_gets_the_result_of_the_one_before_and_del_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    plugin(dir.path(), "one", GOOD);
    plugin(dir.path(), "two", GOOD);
    let caller = Caller::new(vec!["/nowhere".into(), dir.path().to_owned()]);
    let list = list("1.0.0", &["one", "two"]);
    let result = caller.add(&list, &attachment()).unwrap();
    assert!(result.interfaces[0].name.ends_with("two"));
    let calls = log(dir.path());
    assert_eq!(calls[0].0, "one ADD");
    let first = &calls[0].1;
    assert_eq!(first["name"], "net");
    assert_eq!(first["cniVersion"], "1.0.0");
    assert_eq!(first["unknown"], json!([1, {"a": null}]));
    assert_eq!(
        first["runtimeConfig"],
        json!({"portMappings": [{"hostPort": 1}]}),
        "only what is declared and given"
    );
    assert_eq!(first.get("prevResult"), None);
    assert!(
        calls[1].1["prevResult"]["interfaces"][0]["name"]
            .as_str()
            .unwrap()
            .ends_with("one")
    );
    caller.del(&list, &attachment(), Some(&result), false).unwrap();
    let calls = log(dir.path());
    let order: Vec<_> = calls.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(order, ["two DEL", "one DEL"]);
    assert!(
        calls
            .iter()
            .all(|(_, conf)| conf["prevResult"] == result.to_json(list.version()))
    );
}

#[test]
fn before_0_4_0_del_gets_no_result() {
    let dir = tempfile::tempdir().unwrap();
    plugin(dir.path(), "one", GOOD);
    let caller = Caller::new(vec![dir.path().to_owned()]);
    let list = list("0.3.1", &["one"]);
    let result = CniResult::default();
    caller.del(&list, &attachment(), Some(&result), false).unwrap();
    assert_eq!(log(dir.path())[0].1.get("prevResult"), None);
}

#[test]
fn a_failed_add_is_taken_back_and_its_code_is_told() {
    let dir = tempfile::tempdir().unwrap();
    plugin(dir.path(), "one", GOOD);
    plugin(
        dir.path(),
        "bad",
        &format!("[ $CNI_COMMAND = DEL ] && exit 0; {FAILS}"),
    );
    plugin(dir.path(), "three", GOOD);
    let caller = Caller::new(vec![dir.path().to_owned()]);
    let error = caller
        .add(&list("1.0.0", &["one", "bad", "three"]), &attachment())
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::TRY_AGAIN_LATER));
    assert_eq!(chain(&error), "plugin bad: not now; later (code 11)");
    assert_eq!(names(dir.path()), ["one ADD", "bad ADD", "bad DEL", "one DEL"]);
}

#[test]
fn del_goes_on_after_errors_and_reports_all() {
    let dir = tempfile::tempdir().unwrap();
    plugin(dir.path(), "one", FAILS);
    plugin(dir.path(), "two", GOOD);
    plugin(dir.path(), "three", "echo broken >&2; exit 3");
    let caller = Caller::new(vec![dir.path().to_owned()]);
    let errors = caller
        .del(
            &list("1.0.0", &["one", "two", "three", "absent"]),
            &attachment(),
            None,
            false,
        )
        .unwrap_err();
    assert_eq!(errors.0.len(), 2);
    let text = errors.to_string();
    for want in ["not now", "exit code 3", "broken"] {
        assert!(text.contains(want), "{want}: {text}");
    }
    assert_eq!(names(dir.path()), ["three DEL", "two DEL", "one DEL"]);
}

/// Its ADD was never started, so there is nothing to take back; and who waits for it to be installed waits for ever.
#[test]
fn a_plugin_that_is_not_installed_owes_no_del() {
    let dir = tempfile::tempdir().unwrap();
    plugin(dir.path(), "one", GOOD);
    plugin(dir.path(), "three", GOOD);
    let caller = Caller::new(vec![dir.path().to_owned()]);
    let list = list("1.0.0", &["one", "absent", "three"]);
    let error = caller.add(&list, &attachment()).unwrap_err();
    let text = format!(
        "failed to find plugin \"absent\" in path [{}]",
        dir.path().display()
    );
    assert_eq!(chain(&error), text);
    assert_eq!(names(dir.path()), ["one ADD", "one DEL"]);
    for result in [None, Some(&CniResult::default())] {
        let skipped = caller.del(&list, &attachment(), result, false).unwrap();
        assert!(
            matches!(&skipped[..], [CallError::Find { plugin, .. }] if plugin == "absent"),
            "{skipped:?}"
        );
        assert_eq!(names(dir.path()), ["three DEL", "one DEL"]);
    }
}

#[test]
fn a_program_that_cannot_be_started_owes_a_del_only_after_a_complete_add() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("one"), "not executable").unwrap();
    let caller = Caller::new(vec![dir.path().to_owned()]);
    let list = list("1.0.0", &["one"]);
    let error = caller.add(&list, &attachment()).unwrap_err();
    assert!(matches!(error, CallError::Start { .. }), "{error}");
    let skipped = caller.del(&list, &attachment(), None, false).unwrap();
    assert!(matches!(&skipped[..], [CallError::Start { .. }]), "{skipped:?}");
    let result = CniResult::default();
    let errors = caller
        .del(&list, &attachment(), Some(&result), false)
        .unwrap_err();
    assert!(errors.to_string().contains("Permission denied"), "{errors}");
}

#[test]
fn the_hint_about_the_namespace_reaches_the_plugin() {
    let dir = tempfile::tempdir().unwrap();
    plugin(
        dir.path(),
        "one",
        "echo \"hint=$CORACLE_NETNS_GOES_AWAY {}\" >>$LOG",
    );
    let caller = Caller::new(vec![dir.path().to_owned()]);
    for (hint, want) in [(true, "hint=1"), (false, "hint=")] {
        caller
            .del(&list("1.0.0", &["one"]), &attachment(), None, hint)
            .unwrap();
        assert_eq!(names(dir.path())[1], want);
    }
}

#[test]
fn a_plugin_that_hangs_is_killed_with_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    plugin(dir.path(), "one", "sleep 60 & sleep 60");
    let caller = Caller::new(vec![dir.path().to_owned()]).timeout(Duration::from_millis(300));
    let start = Instant::now();
    let error = caller
        .del(&list("1.0.0", &["one"]), &attachment(), None, false)
        .unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(matches!(error.0[0], CallError::Timeout { .. }), "{error}");
}

#[test]
fn a_child_that_keeps_the_pipes_does_not_keep_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("sleep 60 & echo $! >{}; {GOOD}", pid.display());
    plugin(dir.path(), "one", &script);
    let start = Instant::now();
    Caller::new(vec![dir.path().to_owned()])
        .add(&list("1.0.0", &["one"]), &attachment())
        .unwrap();
    assert!(start.elapsed() < Duration::from_secs(30));
    let kill = format!("kill $(cat {})", pid.display());
    assert!(
        std::process::Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn big_inputs_and_outputs_pass_and_endless_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    // Prints a result of about a megabyte, and as much to standard error, before it reads its input.
    let body = r#"[ $CNI_COMMAND = ADD ] || exit 0
head -c 1000000 /dev/zero | tr '\0' x >&2
printf '{"cniVersion":"1.0.0","vendor":"'; head -c 1000000 /dev/zero | tr '\0' x; printf '"}'; cat >/dev/null"#;
    let text = format!("#!/bin/sh\n{body}\n");
    program(&dir.path().join("big"), &text);
    let plugins = json!([{"type": "big", "filler": "y".repeat(1_000_000)}]);
    let list = json!({"cniVersion": "1.0.0", "name": "net", "plugins": plugins});
    let list = ConfList::parse(list.to_string().as_bytes()).unwrap();
    let caller = Caller::new(vec![dir.path().to_owned()]);
    let result = caller.add(&list, &attachment()).unwrap();
    assert_eq!(result.extra["vendor"].as_str().unwrap().len(), 1_000_000);
    plugin(dir.path(), "endless", "yes");
    let error = caller
        .del(&self::list("1.0.0", &["endless"]), &attachment(), None, false)
        .unwrap_err();
    assert!(matches!(error.0[0], CallError::TooMuch { .. }), "{error}");
}

#[test]
fn answers_that_are_no_results_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::new(vec![dir.path().to_owned()]);
    for (script, want) in [
        ("true", "no result"),
        ("[ $CNI_COMMAND = ADD ] && echo nonsense", "no JSON"),
        (
            r#"[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"7.0.0"}'"#,
            "7.0.0",
        ),
        (
            r#"[ $CNI_COMMAND = ADD ] && echo '{"ips":[{"address":"10.0.0.1/24","interface":4}]}'"#,
            "interface",
        ),
        ("[ $CNI_COMMAND = ADD ] && kill -9 $$", "signal 9"),
    ] {
        plugin(dir.path(), "one", &format!("{script}\ntrue"));
        let error = caller.add(&list("1.0.0", &["one"]), &attachment()).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(want), "{script}: {text}");
    }
}

#[test]
fn a_program_that_is_being_written_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one");
    std::fs::copy("/bin/true", &path).unwrap();
    let writer = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(writer);
    });
    Caller::new(vec![dir.path().to_owned()])
        .del(&list("1.0.0", &["one"]), &attachment(), None, false)
        .unwrap();
    release.join().unwrap();
}

#[test]
fn gc_tells_each_plugin_what_stays_and_goes_on_after_errors() {
    let dir = tempfile::tempdir().unwrap();
    plugin(dir.path(), "one", FAILS);
    plugin(dir.path(), "two", GOOD);
    let caller = Caller::new(vec![dir.path().to_owned()]);
    let valid = [ValidAttachment {
        container_id: "c1".into(),
        ifname: "eth0".into(),
    }];
    let errors = caller
        .gc(&list("1.1.0", &["one", "absent", "two"]), &valid)
        .unwrap_err();
    assert_eq!(errors.0.len(), 2);
    let text = errors.to_string();
    assert!(
        text.contains("plugin one: not now") && text.contains("\"absent\""),
        "{text}"
    );
    let calls = log(dir.path());
    let order: Vec<_> = calls.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(order, ["one GC", "two GC"]);
    for (_, conf) in &calls {
        assert_eq!(
            conf["cni.dev/valid-attachments"],
            json!([{"containerID": "c1", "ifname": "eth0"}])
        );
    }
    // Before 1.1.0, and where the list forbids it, nothing is asked.
    caller.gc(&list("1.0.0", &["one"]), &[]).unwrap();
    let forbidden =
        json!({"cniVersion": "1.1.0", "name": "net", "disableGC": true, "plugins": [{"type": "one"}]});
    let forbidden = ConfList::parse(forbidden.to_string().as_bytes()).unwrap();
    caller.gc(&forbidden, &[]).unwrap();
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[test]
fn status_names_the_plugin_that_could_not_add() {
    let dir = tempfile::tempdir().unwrap();
    plugin(dir.path(), "one", GOOD);
    plugin(dir.path(), "two", r#"echo '{"code":50,"msg":"full"}'; exit 1"#);
    let caller = Caller::new(vec![dir.path().to_owned()]);
    caller.status(&list("1.1.0", &["one"])).unwrap();
    let error = caller.status(&list("1.1.0", &["one", "two"])).unwrap_err();
    assert_eq!(error.code(), Some(Code::NOT_AVAILABLE));
    assert_eq!(chain(&error), "plugin two: full (code 50)");
    // Before 1.1.0 no plugin is asked, but its program has to be there.
    caller.status(&list("1.0.0", &["two"])).unwrap();
    let error = caller.status(&list("0.4.0", &["one", "absent"])).unwrap_err();
    assert!(
        matches!(&error, CallError::Find { plugin, .. } if plugin == "absent"),
        "{error}"
    );
    assert_eq!(names(dir.path()), ["one STATUS", "one STATUS", "two STATUS"]);
}
