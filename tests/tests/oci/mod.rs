//! A bundle with a busybox root file system, and `coracle` run on it.
//!
//! Each bundle has its own state directory and its own cgroup; dropping it deletes its container and makes sure that
//! nothing of it is left.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's fixture"
)]

use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A bundle of one test.
pub(crate) struct Bundle {
    folder: tempfile::TempDir,
    /// Its container's name.
    pub(crate) id: String,
    /// The path of its container's cgroup in every hierarchy.
    pub(crate) cgroup: String,
    /// Written to config.json before each command.
    pub(crate) config: Value,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

const APPLETS: &[&str] = &[
    "sh", "cat", "chmod", "dd", "echo", "env", "false", "grep", "head", "id", "kill", "ls", "mkdir", "mknod",
    "mount", "nice", "ps", "pwd", "readlink", "seq", "sleep", "stat", "stty", "tail", "test", "touch",
    "true", "tty", "wc",
];

impl Bundle {
    /// A bundle whose process runs `script` in a shell.
    pub(crate) fn new(name: &str, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_root(&folder.path().join("rootfs"));
        let id = format!("{name}-{}", std::process::id());
        let cgroup = format!("/coracle-oci-{id}");
        let made = coracle()
            .args(["spec", "--bundle"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let text = std::fs::read(folder.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["linux"]["cgroupsPath"] = json!(cgroup);
        Self {
            folder,
            id,
            cgroup,
            config,
        }
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The root file system on the host.
    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// `coracle` with this bundle's state directory.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        std::fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
        let mut command = coracle();
        command
            .arg("--root")
            .arg(self.path().join("state"))
            .args(args)
            .current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn say<S: AsRef<OsStr>>(&self, args: &[S]) -> Said {
        Said::of(self.command(args).output().unwrap())
    }

    /// `run` in the foreground.
    pub(crate) fn run(&self) -> Said {
        self.say(&["run", &self.id])
    }

    /// `run --detach`; with the streams on /dev/null, which the container keeps open.
    pub(crate) fn start(&self) {
        let errors = self.path().join("errors");
        let file = std::fs::File::create(&errors).unwrap();
        let mut command = self.command(&["run", "--detach", &self.id]);
        let done = command.stdout(Stdio::null()).stderr(file).status().unwrap();
        assert!(done.success(), "{}", std::fs::read_to_string(errors).unwrap());
    }

    /// `exec` of a shell script.
    pub(crate) fn exec(&self, script: &str) -> Said {
        self.exec_with(&[], &["sh", "-c", script])
    }

    /// `exec` with flags.
    pub(crate) fn exec_with(&self, flags: &[&str], command: &[&str]) -> Said {
        let words = [&["exec"], flags, &[self.id.as_str()], command].concat();
        self.say(&words)
    }

    /// `delete --force`.
    pub(crate) fn delete(&self) -> Said {
        self.say(&["delete", "--force", &self.id])
    }

    /// The directory of its cgroup in the hierarchy of a v1 controller.
    pub(crate) fn cgroup_dir(&self, controller: &str) -> PathBuf {
        mounts_of(controller)
            .expect("the controller is mounted")
            .join(self.cgroup.trim_start_matches('/'))
    }

    /// The text of a control file.
    pub(crate) fn control(&self, controller: &str, file: &str) -> String {
        let path = self.cgroup_dir(controller).join(file);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }

    /// Directories of its cgroup that exist.
    pub(crate) fn cgroups_left(&self) -> Vec<PathBuf> {
        let below = self.cgroup.trim_start_matches('/');
        all_cgroup_mounts()
            .into_iter()
            .map(|mount| mount.join(below))
            .filter(|dir| dir.exists())
            .collect()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let deleted = self.delete();
        if std::thread::panicking() {
            return;
        }
        assert_eq!(deleted.code, 0, "{deleted:?}");
        assert_eq!(self.cgroups_left(), [] as [PathBuf; 0]);
        let state = std::fs::read_dir(self.path().join("state"));
        assert_eq!(state.into_iter().flatten().count(), 0, "state is left");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path().to_str().unwrap()), "a mount is left");
    }
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            // A signal has no code; no test expects one.
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it wrote, after success.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// What it complained about, after failure with `code`.
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }

    /// A field of /proc/PID/status in the output.
    pub(crate) fn field(&self, name: &str) -> &str {
        let found = self
            .out
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {name}: {self:?}")).trim()
    }
}

/// Waits until `true` comes, at most five seconds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program under test.
pub(crate) fn coracle() -> Command {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = std::env::var_os("CORACLE_BIN").map_or_else(|| workspace.join("bin"), PathBuf::from);
    let program = folder.join("coracle");
    assert!(
        program.is_file(),
        "{} is not there: `make build` makes it",
        program.display()
    );
    Command::new(program)
}

/// Where the v1 hierarchy with this controller is mounted.
pub(crate) fn mounts_of(controller: &str) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let has = |line: &&str| {
        line.contains(" - cgroup ")
            && line
                .rsplit(' ')
                .next()
                .is_some_and(|all| all.split(',').any(|one| one == controller))
    };
    mounts
        .lines()
        .find(has)
        .and_then(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
}

fn all_cgroup_mounts() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroup = mounts.lines().filter(|line| line.contains(" - cgroup"));
    cgroup
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}

fn make_root(root: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("Debian's busybox-static is installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}
