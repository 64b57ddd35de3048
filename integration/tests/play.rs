//! `coraclectl play`: pods from manifests, without a kubelet, to the last trace.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use coracle_integration::daemon::{Daemon, payload_archive};
use coracle_integration::leak::Snapshot;
use coracle_integration::node::{self, Node};
use coracle_integration::registry::Registry;
use coracle_integration::{programs, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const IMAGE: &str = "localhost/coracle/payload:1";
/// Nothing here takes longer, also on a machine that has no time: `play` looks after restarts and logs every few seconds.
const BOUND: Duration = Duration::from_secs(60);

/// A person at a node with a daemon.
struct Person<'node> {
    node: &'node Node,
    daemon: &'node Daemon<'node>,
    data: PathBuf,
}

/// A `play` in the background.
struct Play {
    child: RefCell<Option<Child>>,
    output: PathBuf,
}

impl<'node> Person<'node> {
    fn new(node: &'node Node, daemon: &'node Daemon<'node>) -> Person<'node> {
        // Longer than sun_path and with a blank, as a person's directories may be.
        Person {
            node,
            daemon,
            data: node.folder(&format!("data {}", "d".repeat(120))),
        }
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("coraclectl")
    }

    /// Its stdout; it must succeed.
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "{words:?}: {}\n{out}{err}",
            output.status
        );
        out
    }

    fn play(&self, manifest: &Path) -> Play {
        let output = self.node.scratch().join(format!(
            "play-{}.log",
            fs::read_dir(self.node.scratch()).unwrap().count()
        ));
        let file = fs::File::create(&output).unwrap();
        let mut command = self.command(&["play", "--follow"]);
        command
            .arg(manifest)
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Play {
            child: RefCell::new(Some(command.spawn().expect("coraclectl"))),
            output,
        }
    }

    /// A manifest of a pod `p` with this spec.
    fn manifest(&self, spec: &str) -> PathBuf {
        let spec = spec.replace("IMAGE", IMAGE);
        let path = self.node.scratch().join("pod.yaml");
        fs::write(
            &path,
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n{spec}"),
        )
        .unwrap();
        path
    }

    /// State of a container as `ps -o json` has it.
    fn container(&self, pod: &str, name: &str) -> Option<Value> {
        let pods: Value = serde_json::from_str(&self.ok(&["ps", "-o", "json"])).unwrap();
        let pod = pods.as_array()?.iter().find(|entry| entry["name"] == pod)?;
        pod["containers"]
            .as_array()?
            .iter()
            .rev()
            .find(|entry| entry["name"] == name)
            .cloned()
    }

    fn await_running(&self, pod: &str, name: &str) {
        wait::until_true(BOUND, &format!("container {name} of {pod} runs"), || {
            self.container(pod, name)
                .is_some_and(|container| container["state"] == "Running")
        });
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.node.command(programs::ours("coraclectl"));
        command
            .env("CORACLE_ADDRESS", self.daemon.address())
            .env("CORACLECTL_DATA", &self.data)
            .args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Play {
    fn log(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    fn await_line(&self, what: &str) {
        wait::until_true(BOUND, &format!("{what:?} in what play says"), || {
            self.log().contains(what)
        });
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.borrow().as_ref().map(Child::id).expect("play runs");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// Its exit code, or none when a signal ended it.
    fn end(&self, bound: Duration) -> Option<i32> {
        let mut child = self.child.borrow_mut().take().expect("play runs");
        let mut status = None;
        let done = wait::until(bound, || {
            status = child.try_wait().unwrap();
            status.ok_or("still runs")
        });
        let Ok(status) = done else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("play did not end within {bound:?}: {}", self.log());
        };
        status.code()
    }

    /// Ctrl-C: everything goes, and that is a success.
    fn stop(&self) {
        self.signal(Signal::SIGINT);
        assert_eq!(self.end(BOUND), Some(0), "{}", self.log());
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.borrow_mut().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name)
}

/// Runs `test` with a daemon that has the payload image; afterwards nothing may be left of its pods.
fn played(name: &str, test: impl FnOnce(&Person<'_>) + Send + 'static) {
    node::run(name, |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let person = Person::new(node, &daemon);
        let before = Snapshot::take_with_files(node, &daemon, &[&person.data]);
        test(&person);
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn the_first_lessons_pods_run_as_they_are_written() {
    played("play-first-lesson", |person| {
        for file in ["my-pod.yaml", "my-pod-volume.yaml"] {
            let play = person.play(&example(file));
            play.await_line("[my-container] serving on port 8080");
            let answer = person.ok(&[
                "exec",
                "my-pod",
                "my-container",
                "--",
                "/payload",
                "fetch",
                "http://localhost:8080/",
            ]);
            assert_eq!(answer, "200 hello from my-pod\n");
            play.stop();
            assert!(person.container("my-pod", "my-container").is_none());
        }
        let play = person.play(&example("my-pod-shared-volume.yaml"));
        person.await_running("my-pod", "my-container");
        play.await_line("[my-second-container] serving on port 8081");
        let read = person.ok(&[
            "exec",
            "my-pod",
            "my-container",
            "--",
            "/payload",
            "cat",
            "/data/greeting",
        ]);
        assert_eq!(read, "written by the second container\n");
        let refused = person.run(&[
            "exec",
            "my-pod",
            "my-container",
            "--",
            "/payload",
            "write",
            "/data/x",
            "y",
        ]);
        assert_eq!(refused.status.code(), Some(1), "its mount is read-only");
        let again = person.run(&["play", example("my-pod.yaml").to_str().unwrap()]);
        assert_eq!(again.status.code(), Some(1));
        assert!(
            text(&again.stderr).contains("is there already"),
            "{}",
            text(&again.stderr)
        );
        play.stop();
    });
}

#[test]
fn the_sidecar_reaches_the_server_and_the_host_its_port() {
    played("play-sidecar", |person| {
        let play = person.play(&example("sidecar.yaml"));
        play.await_line("[sidecar] http://localhost:8080/: 200 hello from web");
        let payload = programs::ours("coracle-payload");
        let fetch = |url: &str| {
            let output = person
                .node
                .command(&payload)
                .args(["fetch", url])
                .output()
                .unwrap();
            text(&output.stdout)
        };
        assert_eq!(fetch("http://127.0.0.1:18080/"), "200 hello from web\n");
        let table = person.ok(&["ps"]);
        assert_eq!(
            table.lines().filter(|line| line.contains("Running")).count(),
            2,
            "{table}"
        );
        assert!(
            person
                .ok(&["logs", "web", "sidecar"])
                .contains("200 hello from web")
        );
        play.stop();
    });
}

#[test]
fn init_containers_and_native_sidecars_run_in_their_order() {
    played("play-init", |person| {
        let manifest = person.manifest(
            "  restartPolicy: Never\n  volumes: [{name: v, emptyDir: {}}]\n  initContainers:\n  - {name: first, image: IMAGE, \
             args: [append, /v/order, first], volumeMounts: [{name: v, mountPath: /v}]}\n  - {name: side, image: IMAGE, \
             restartPolicy: Always, args: [append, /v/order, side, --, write, /v/up, x, --, serve, '9000', beside], \
             volumeMounts: [{name: v, mountPath: /v}]}\n  - {name: second, image: IMAGE, args: [wait-for, /v/up, --, append, \
             /v/order, second], volumeMounts: [{name: v, mountPath: /v}]}\n  containers:\n  - {name: main, image: IMAGE, \
             args: [append, /v/order, main, --, cat, /v/order, --, wait-for-port, '9000', --, fetch, 'http://localhost:9000/'], volumeMounts: [{name: \
             v, mountPath: /v}]}\n",
        );
        let play = person.play(&manifest);
        assert_eq!(play.end(BOUND), Some(0), "{}", play.log());
        let said: Vec<String> = play
            .log()
            .lines()
            .filter_map(|line| line.strip_prefix("[main] "))
            .map(str::to_owned)
            .collect();
        assert_eq!(said, ["first", "side", "second", "main", "200 beside from p"]);
    });
}

#[test]
fn restarts_exit_codes_and_last_words_are_told() {
    played("play-restart", |person| {
        let failing = "args: [write, /dev/termination-log, 'out of tea', --, exit, '3']";
        let never = person.manifest(&format!(
            "  restartPolicy: Never\n  containers: [{{name: c, image: IMAGE, {failing}}}]\n"
        ));
        let play = person.play(&never);
        assert_eq!(play.end(BOUND), Some(3), "{}", play.log());
        assert!(
            play.log()
                .contains("container c: ended with exit code 3 (Error): out of tea"),
            "{}",
            play.log()
        );

        let on_failure = person.manifest(
            "  restartPolicy: OnFailure\n  volumes: [{name: v, emptyDir: {}}]\n  containers: [{name: c, image: IMAGE, args: \
             [cat, /v/once, --, exit, '0'], volumeMounts: [{name: v, mountPath: /v}]}, {name: d, image: IMAGE, args: \
             [wait-for, /v/once], volumeMounts: [{name: v, mountPath: /v}]}]\n",
        );
        let play = person.play(&on_failure);
        // The first restart comes at once, the next after the kubelet's ten seconds.
        play.await_line("starting it again in 10 s");
        person.ok(&["exec", "p", "d", "--", "/payload", "write", "/v/once", "x"]);
        assert_eq!(play.end(BOUND), Some(0), "{}", play.log());

        let init = person.manifest(
            "  restartPolicy: Never\n  initContainers: [{name: i, image: IMAGE, args: [exit, '4']}]\n  containers: [{name: c, \
             image: IMAGE, args: ['true']}]\n",
        );
        let play = person.play(&init);
        assert_eq!(play.end(BOUND), Some(3), "{}", play.log());
        assert!(!play.log().contains("container c started"), "{}", play.log());
    });
}

#[test]
fn the_environment_the_user_and_the_limits_are_those_of_the_manifest() {
    played("play-fields", |person| {
        let manifest = person.manifest(
            "  restartPolicy: Never\n  hostname: named\n  securityContext: {runAsUser: 1000, runAsGroup: 100, \
             supplementalGroups: [7], fsGroup: 8}\n  volumes: [{name: v, emptyDir: {}}]\n  containers:\n  - name: c\n    image: \
             IMAGE\n    command: [/payload]\n    args: [id, --, env, --, hostname, --, write, /v/f, '$(GREETING) you', --, \
             cat, /v/f]\n    workingDir: /not/in/image\n    env: [{name: GREETING, value: hello}, {name: NODE, valueFrom: {fieldRef: \
             {fieldPath: metadata.name}}}]\n    volumeMounts: [{name: v, mountPath: /v}]\n    securityContext: \
             {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n",
        );
        let play = person.play(&manifest);
        assert_eq!(play.end(BOUND), Some(0), "{}", play.log());
        let log = play.log();
        for line in [
            "[c] Uid: 1000 1000 1000 1000",
            "[c] Gid: 100 100 100 100",
            "[c] CapBnd: 0000000000000000",
            "[c] NoNewPrivs: 1",
            "[c] GREETING=hello",
            "[c] NODE=p",
            "[c] named",
            "[c] hello you",
        ] {
            assert!(
                log.lines().any(|other| other == line),
                "{line:?} is not in\n{log}"
            );
        }
        assert!(
            log.contains("[c] Groups: ")
                && log
                    .lines()
                    .any(|line| line.starts_with("[c] Groups:") && line.contains('8'))
        );
    });
}

#[test]
fn a_memory_volume_is_a_file_system_of_its_size_and_a_killed_play_is_cleared_away() {
    played("play-memory", |person| {
        let manifest = person.manifest(
            "  terminationGracePeriodSeconds: 1\n  volumes: [{name: m, emptyDir: {medium: Memory, sizeLimit: 3Mi}}, {name: d, \
             emptyDir: {}}]\n  containers: [{name: c, image: IMAGE, args: [mounts, --, serve, '8080'], volumeMounts: [{name: m, \
             mountPath: /m}, {name: d, mountPath: /d, subPath: a/b}]}]\n",
        );
        let play = person.play(&manifest);
        play.await_line("serving on port 8080");
        let mounts = play.log();
        let line = mounts
            .lines()
            .find(|line| line.contains(" /m "))
            .expect("a mount at /m");
        assert!(line.contains("tmpfs") && line.contains("size=3072k"), "{line}");
        let full = person.run(&["exec", "p", "c", "--", "/payload", "fill-file", "/m/f", "4"]);
        assert!(
            text(&full.stderr).contains("No space left"),
            "{}",
            text(&full.stderr)
        );
        person.ok(&["exec", "p", "c", "--", "/payload", "write", "/d/f", "x"]);

        play.signal(Signal::SIGKILL);
        assert_eq!(play.end(BOUND), None);
        let answer = person.ok(&[
            "exec",
            "p",
            "c",
            "--",
            "/payload",
            "fetch",
            "http://localhost:8080/",
        ]);
        assert_eq!(answer, "200 hello from p\n", "the pod goes on");
        person.ok(&["down", "p"]);
        let gone = person.run(&["down", "p"]);
        assert_eq!(gone.status.code(), Some(1));
        assert_eq!(
            text(&gone.stderr),
            "coraclectl: there is no pod \"p\" in namespace \"default\"\n"
        );
    });
}

#[test]
fn a_pod_that_fills_its_disk_volume_is_evicted() {
    played("play-evict", |person| {
        let manifest = person.manifest(
            "  volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]\n  containers: [{name: c, image: IMAGE, args: [fill-file, /v/f, \
             '3'], volumeMounts: [{name: v, mountPath: /v}]}]\n",
        );
        let play = person.play(&manifest);
        assert_eq!(play.end(BOUND), Some(3), "{}", play.log());
        // It may be measured while it is being filled.
        let log = play.log();
        assert!(
            log.contains("evicted: volume \"v\" holds ")
                && log.contains(" MB, more than its sizeLimit of 1.0 MB"),
            "{log}"
        );
    });
}

#[test]
fn down_ends_a_pod_that_is_played_elsewhere_and_a_second_signal_ends_the_grace() {
    played("play-down", |person| {
        let manifest = person.manifest("  containers: [{name: c, image: IMAGE, args: [trap, '1000']}]\n");
        let play = person.play(&manifest);
        person.await_running("p", "c");
        play.signal(Signal::SIGTERM);
        play.await_line("stopping");
        play.signal(Signal::SIGTERM);
        assert_eq!(play.end(BOUND), Some(0), "{}", play.log());

        let manifest = person.manifest("  containers: [{name: c, image: IMAGE}]\n");
        let play = person.play(&manifest);
        person.await_running("p", "c");
        person.ok(&["down", "p"]);
        assert_eq!(play.end(BOUND), Some(0), "{}", play.log());
    });
}

#[test]
fn a_play_outlives_the_daemon() {
    played("play-daemon", |person| {
        let manifest = person.manifest("  containers: [{name: c, image: IMAGE}]\n");
        let play = person.play(&manifest);
        person.await_running("p", "c");
        person.daemon.kill9();
        play.await_line("waiting for it");
        person.daemon.restart();
        person.await_running("p", "c");
        assert_eq!(
            play.log().matches("container c started").count(),
            1,
            "{}",
            play.log()
        );
        play.stop();
    });
}

/// What is refused before or while a pod is made leaves nothing, says so in one line, and has its own exit code.
#[test]
fn what_cannot_be_played_leaves_nothing() {
    played("play-refused", |person| {
        let one = |rest: &str| format!("  containers: [{{name: c, image: IMAGE{rest}}}]\n");
        let cases = [
            (
                one(", livenessProbe: {exec: {command: [x]}}"),
                "line 5: spec.containers[0].livenessProbe: not supported",
            ),
            (
                one(", image2: x"),
                "line 5: spec.containers[0].image2: Kubernetes has no such field here",
            ),
            (
                "  containers: [{name: c, image: 'localhost/none:1', imagePullPolicy: Never}]\n".to_owned(),
                "is not here, and imagePullPolicy is Never",
            ),
            (
                format!(
                    "{}  volumes: [{{name: v, hostPath: {{path: /no/such, type: Directory}}}}]\n",
                    one("")
                ),
                "volume v: /no/such is not a directory",
            ),
            (
                one(", securityContext: {runAsNonRoot: true}"),
                "runAsNonRoot is set and it would run as root",
            ),
            (one(", command: [/no/such/program]"), "/no/such/program"),
        ];
        for (spec, wanted) in cases {
            let manifest = person.manifest(&spec);
            let output = person.run(&["play", manifest.to_str().unwrap()]);
            let said = text(&output.stderr);
            let last = said.lines().last().unwrap_or_default();
            assert_eq!(output.status.code(), Some(1), "{spec}: {said}");
            assert!(
                last.starts_with("coraclectl: ") && last.contains(wanted),
                "{spec}: {said}"
            );
            assert_eq!(person.ok(&["ps"]).lines().count(), 1, "{spec}");
            assert_eq!(fs::read_dir(&person.data).unwrap().count(), 0, "{spec}");
        }
    });
}

#[test]
fn a_sub_path_does_not_lead_out_of_its_volume() {
    played("play-sub-path", |person| {
        let outside = person.node.folder("outside");
        fs::write(outside.join("secret"), "x").unwrap();
        let volume = person.node.folder("volume");
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        let manifest = person.manifest(&format!(
            "  restartPolicy: Never\n  volumes: [{{name: v, hostPath: {{path: '{}'}}}}]\n  containers: [{{name: c, image: IMAGE, \
             args: [ls, /s], volumeMounts: [{{name: v, mountPath: /s, subPath: link}}]}}]\n",
            volume.display()
        ));
        let play = person.play(&manifest);
        let code = play.end(BOUND);
        assert!(!play.log().contains("secret"), "{code:?} {}", play.log());
        // As the kubelet refuses it, and not an empty directory.
        assert_ne!(code, Some(0), "{}", play.log());
        assert!(
            play.log().contains("a link leads out of the volume"),
            "{}",
            play.log()
        );
        assert!(!volume.join(outside.strip_prefix("/").unwrap()).exists());
    });
}

#[test]
fn errors_of_the_other_commands_are_one_line_and_an_exit_code() {
    played("ctl-errors", |person| {
        let none = person.node.scratch().join("none");
        let empty = person.node.scratch().join("empty");
        fs::write(&empty, "").unwrap();
        let garbage = person.node.scratch().join("garbage");
        fs::write(&garbage, "no archive at all").unwrap();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let cases = [
            (
                vec!["exec".to_owned(), "p".into(), "c".into(), "--".into(), "x".into()],
                1,
                "there is no pod \"p\"",
            ),
            (
                vec!["logs".into(), "p".into(), "c".into()],
                1,
                "there is no pod \"p\"",
            ),
            (vec!["down".into(), "p".into()], 1, "there is no pod \"p\""),
            (
                vec!["image".into(), "rm".into(), "none:1".into()],
                1,
                "there is no image \"none:1\"",
            ),
            (
                vec!["image".into(), "import".into(), path(&none)],
                1,
                "none: No such file or directory",
            ),
            (
                vec!["image".into(), "import".into(), path(&empty)],
                1,
                "ends before any byte of an archive",
            ),
            (
                vec!["image".into(), "import".into(), path(&garbage)],
                1,
                "garbage",
            ),
            (
                vec!["play".into(), path(&none)],
                1,
                "none: No such file or directory",
            ),
            (vec!["play".into(), path(&garbage)], 1, "garbage: line 1"),
            (
                vec!["--address".into(), "unix:///no/such.sock".into(), "ps".into()],
                1,
                "coracled cannot be reached at unix:///no/such.sock",
            ),
            (
                vec!["--address".into(), "tcp:1".into(), "ps".into()],
                2,
                "must be unix:// and an absolute path",
            ),
        ];
        for (words, code, wanted) in cases {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let output = person.run(&words);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
            assert!(said.contains(wanted), "{words:?}: {said}");
            assert!(code == 2 || said.lines().count() == 1, "{words:?}: {said}");
        }
        let images = person.ok(&["image", "ls"]);
        assert!(images.contains(IMAGE), "{images}");
    });
}

#[test]
fn a_pod_whose_shim_is_killed_is_removed_and_counts_as_failed() {
    played("play-shim", |person| {
        let manifest = person.manifest("  containers: [{name: c, image: IMAGE}]\n");
        let play = person.play(&manifest);
        person.await_running("p", "c");
        person.node.signal(person.node.pid_of(&["coracle-shim"]), "KILL");
        assert_eq!(play.end(BOUND), Some(3), "{}", play.log());
        assert!(
            play.log().contains("container c: ended with exit code 137")
                && play.log().contains("its sandbox has ended"),
            "{}",
            play.log()
        );
    });
}

#[test]
fn several_pods_of_one_file_on_standard_input_are_played_together() {
    played("play-several", |person| {
        let one = |name: &str, args: &str| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{restartPolicy: Never, containers: [{{name: c, \
                 image: '{IMAGE}', args: {args}}}]}}\n"
            )
        };
        let path = person.node.scratch().join("two.yaml");
        let text_of = |code: &str| {
            format!(
                "{}{}",
                one("a", "[echo, from a]"),
                one("b", &format!("[echo, from b, --, exit, '{code}']"))
            )
        };
        for (code, wanted) in [("0", 0), ("9", 3)] {
            fs::write(&path, text_of(code)).unwrap();
            let mut command = person.command(&["play", "--follow", "-"]);
            let output = command.stdin(fs::File::open(&path).unwrap()).output().unwrap();
            let out = text(&output.stdout);
            assert_eq!(
                output.status.code(),
                Some(wanted),
                "{out}{}",
                text(&output.stderr)
            );
            assert!(
                out.contains("[a/c] from a\n") && out.contains("[b/c] from b\n"),
                "{out}"
            );
        }
    });
}

#[test]
fn a_log_is_rotated_and_followed_to_its_last_line() {
    played("play-rotate", |person| {
        let manifest = person.manifest(
            "  restartPolicy: Never\n  volumes: [{name: v, emptyDir: {}}]\n  containers: [{name: c, image: IMAGE, args: \
             [write-lines, '150000', '100', --, wait-for, /v/rotated, --, write-lines, '1000', '100', --, echo, last], \
             volumeMounts: [{name: v, mountPath: /v}]}]\n",
        );
        let play = person.play(&manifest);
        play.await_line("line 149999 ");
        let rotated = || {
            let pods = fs::read_dir(&person.data).unwrap().flatten();
            pods.filter(|pod| pod.path().join("logs/c/0.log.1").exists())
                .count()
                == 1
        };
        wait::until_true(BOUND, "the log of 15 MB is rotated", rotated);
        person.ok(&["exec", "p", "c", "--", "/payload", "write", "/v/rotated", "x"]);
        assert_eq!(play.end(BOUND), Some(0));
        let log = play.log();
        assert_eq!(
            log.lines().filter(|line| line.starts_with("[c] line ")).count(),
            151_000
        );
        assert!(log.contains("[c] last\n"));
    });
}

#[test]
fn a_reader_that_stops_reading_stops_neither_the_pod_nor_its_end() {
    played("play-stuck", |person| {
        let manifest = person.manifest(
            "  terminationGracePeriodSeconds: 1\n  containers: [{name: c, image: IMAGE, args: [write-lines, '1000000000']}]\n",
        );
        let mut command = person.command(&["play", "--follow", manifest.to_str().unwrap()]);
        // Nobody reads this pipe.
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let play = Play {
            child: RefCell::new(Some(child)),
            output: manifest,
        };
        person.await_running("p", "c");
        play.stop();
    });
}

#[test]
fn images_are_pulled_listed_and_removed() {
    played("ctl-images", |person| {
        let registry = Registry::start(person.node);
        let reference = registry.push(&payload_archive(person.node), "pulled:7");
        let pulled = person.ok(&["image", "pull", &reference]);
        assert!(pulled.starts_with(&format!("{reference} ")), "{pulled}");
        assert!(
            person.ok(&["image", "ls"]).contains(&reference.replace(":7", "")),
            "{}",
            person.ok(&["image", "ls"])
        );
        person.ok(&["image", "rm", &reference]);
        let again = person.run(&["image", "rm", &reference]);
        assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));

        let manifest = person.node.scratch().join("pulled.yaml");
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{restartPolicy: Never, containers: [{{name: c, image: \
             '{reference}', args: [echo, hello]}}]}}\n"
        );
        fs::write(&manifest, pod).unwrap();
        let output = person.run(&["play", "--follow", manifest.to_str().unwrap()]);
        assert_eq!(text(&output.stdout), "[c] hello\n", "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(&format!("pulling image {reference}")));
        drop(registry);
        person.ok(&["image", "rm", &reference]);
        person.daemon.import_payload();
        // skopeo's, which pushed the image.
        person.node.does(&["rm", "-r", "/var/lib/containers"]);
    });
}

#[test]
fn the_hosts_namespaces_privileges_and_memory_limits_are_as_written() {
    played("play-host", |person| {
        let manifest = person.manifest(
            "  hostNetwork: true\n  hostPID: true\n  containers:\n  - {name: c, image: IMAGE, args: [id, --, serve, '8085'], ports: \
             [{containerPort: 8085}], securityContext: {privileged: true}}\n  - {name: d, image: IMAGE, args: [id, --, serve, \
             '8086']}\n",
        );
        let play = person.play(&manifest);
        play.await_line("serving on port 8085");
        play.await_line("serving on port 8086");
        let fetch = programs::ours("coracle-payload");
        let output = person
            .node
            .command(fetch)
            .args(["fetch", "http://127.0.0.1:8085/"])
            .output()
            .unwrap();
        assert!(
            text(&output.stdout).starts_with("200 hello"),
            "{}",
            text(&output.stdout)
        );
        let bounding = |name: &str| {
            let line = play
                .log()
                .lines()
                .find(|line| line.starts_with(&format!("[{name}] CapBnd: ")))
                .map(str::to_owned);
            u64::from_str_radix(line.unwrap().split(' ').next_back().unwrap(), 16).unwrap()
        };
        assert!(
            bounding("c").count_ones() > bounding("d").count_ones(),
            "{}",
            play.log()
        );
        let seen = person.ok(&["exec", "p", "d", "--", "/payload", "cat", "/proc/1/comm"]);
        assert_ne!(seen, "payload\n", "the node's PID 1 is seen");
        play.stop();

        let eating = person.manifest(
            "  restartPolicy: Never\n  containers: [{name: c, image: IMAGE, args: [fill-memory, '200'], resources: {limits: \
             {memory: 32Mi}}}]\n",
        );
        let play = person.play(&eating);
        assert_eq!(play.end(BOUND), Some(3), "{}", play.log());
        assert!(
            play.log().contains("ended with exit code 137 (OOMKilled)"),
            "{}",
            play.log()
        );

        let shared = person.manifest(
            "  shareProcessNamespace: true\n  containers: [{name: c, image: IMAGE}, {name: d, image: IMAGE, args: [serve, \
             '8081']}]\n",
        );
        let play = person.play(&shared);
        person.await_running("p", "d");
        let shown = person.ok(&["exec", "p", "d", "--", "/payload", "ls", "/proc"]);
        let processes = shown
            .lines()
            .filter(|name| name.chars().all(|c| c.is_ascii_digit()))
            .count();
        assert_eq!(
            processes, 4,
            "the pod's init, both containers and this command: {shown}"
        );
        play.stop();
    });
}
