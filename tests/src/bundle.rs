//! OCI bundles with a busybox root, and the `coracle` command on them.
//!
//! Every bundle is its own world: directory, state directory, cgroup below `/coracle-oci-test`. When it goes out of
//! scope its container is deleted, and the test fails if anything of it is left.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Only tests use this: what goes wrong here is a failed test.

use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A bundle and the container made of it.
#[derive(Debug)]
pub struct Bundle {
    dir: tempfile::TempDir,
    /// The container's name.
    pub id: String,
    /// The specification; written when a command is run.
    pub spec: Value,
}

/// The directory of the programs under test: `CORACLE_BIN`, else `bin` of the workspace.
#[must_use]
pub fn programs() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin");
    std::env::var_os("CORACLE_BIN").map_or_else(built, PathBuf::from)
}

impl Bundle {
    /// A bundle whose container runs `script` in a shell.
    #[must_use]
    pub fn new(script: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("t{}-{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix("coracle-oci-").tempdir().unwrap();
        // A user namespace's root must be able to reach its root file system's parents only through its maker.
        std::fs::create_dir_all(dir.path().join("rootfs/bin")).unwrap();
        for name in ["etc", "proc", "sys", "dev", "tmp"] {
            std::fs::create_dir(dir.path().join("rootfs").join(name)).unwrap();
        }
        let bundle = Self {
            spec: spec(script, &id),
            dir,
            id,
        };
        bundle.install_busybox();
        bundle
    }

    /// A path in the bundle's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the root file system.
    #[must_use]
    pub fn root(&self, name: &str) -> PathBuf {
        self.path("rootfs").join(name)
    }

    /// Appends a mount to the specification.
    pub fn mount(&mut self, destination: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) {
        let source = source.as_ref();
        let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Binds a directory of the bundle's, made here.
    pub fn volume(&mut self, name: &str, destination: &str, options: &[&str]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        self.mount(destination, "bind", &path, options);
        path
    }

    /// Leaves only namespaces of these kinds.
    pub fn namespaces(&mut self, kinds: &[&str]) {
        self.spec["linux"]["namespaces"] = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    }

    /// Adds a new namespace, or one to join.
    pub fn namespace(&mut self, kind: &str, path: Option<&Path>) {
        let list = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
        list.push(path.map_or_else(
            || json!({ "type": kind }),
            |path| json!({ "type": kind, "path": path }),
        ));
    }

    /// A user namespace whose ids begin at 100000 on the host, and a root file system that belongs to it.
    pub fn user_namespace(&mut self) {
        self.namespace("user", None);
        for map in ["uidMappings", "gidMappings"] {
            self.spec["linux"][map] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        }
        let chown = Command::new("chown")
            .args(["-R", "100000:100000"])
            .arg(self.path("rootfs"))
            .status();
        assert!(chown.unwrap().success());
    }

    /// The command, with this bundle's specification written, in its directory.
    #[must_use]
    pub fn coracle<S: AsRef<str>>(&self, args: &[S]) -> Command {
        std::fs::write(
            self.path("config.json"),
            serde_json::to_vec_pretty(&self.spec).unwrap(),
        )
        .unwrap();
        let mut command = Command::new(programs().join("coracle"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
            .arg("--root")
            .arg(self.path("state"))
            .args(args.iter().map(AsRef::as_ref));
        command
    }

    /// Runs a command of `coracle` on this container: `id` is appended.
    pub fn call(&self, args: &[&str]) -> Output {
        let mut args = args.to_vec();
        args.push(&self.id);
        self.coracle(&args).output().unwrap()
    }

    /// Like [`call`](Self::call), and it must succeed; gives its output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Like [`call`](Self::call), and it must fail with code 1; gives what it said.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs the container to its end; it must succeed.
    pub fn run(&self) -> String {
        self.ok(&["run"])
    }

    /// Creates the container with its output in `out` and gives the id of its first process.
    pub fn create(&self) -> u32 {
        let pid_file = self.path("pid");
        let out = std::fs::File::create(self.path("out")).unwrap();
        let args = ["create", "--pid-file", pid_file.to_str().unwrap(), &self.id];
        // Errors of the command and of the container's payload both end up in the file.
        let status = self
            .coracle(&args)
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .status()
            .unwrap();
        assert!(status.success(), "{}", self.output());
        std::fs::read_to_string(pid_file).unwrap().parse().unwrap()
    }

    /// What a container of [`create`](Self::create) has printed.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.path("out")).unwrap()
    }

    /// The state as `coracle state` prints it.
    #[must_use]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state"])).unwrap()
    }

    /// The directories of the container's cgroup.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap();
        let own = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().path().join("coracle-oci-test").join(&self.id)
        };
        hierarchies.map(own).filter(|path| path.exists()).collect()
    }

    /// Fails when something of the container is left.
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let state = std::fs::read_dir(self.path("state")).map(|entries| entries.count());
        assert_eq!(state.unwrap_or(0), 0, "in the state directory");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "{mounts}");
    }

    fn install_busybox(&self) {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        std::fs::copy(
            busybox.expect("busybox-static is installed"),
            self.root("bin/busybox"),
        )
        .unwrap();
        for name in APPLETS {
            symlink("busybox", self.root("bin").join(name)).unwrap();
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let deleted = self.call(&["delete", "--force"]);
        if !std::thread::panicking() {
            assert!(deleted.status.success(), "{}", said(&deleted));
            self.assert_nothing_left();
        }
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            // Of all bundles; the last one succeeds.
            let _ = std::fs::remove_dir(hierarchy.path().join("coracle-oci-test"));
        }
    }
}

/// Everything a command printed.
#[must_use]
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A child that is killed and collected when this is dropped.
#[derive(Debug)]
pub struct Helper(pub Child);

impl Helper {
    /// A process in new namespaces (options of unshare(1)) that stays until this is dropped.
    #[must_use]
    pub fn unshared(options: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        // Should it fork, the child is not to outlive it.
        command
            .arg("--kill-child")
            .args(options)
            .args(["sh", "-c", "echo ready; exec sleep 1000"])
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    /// The file of one of its namespaces.
    #[must_use]
    pub fn namespace(&self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.0.id()))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `done`, at most five seconds.
///
/// # Panics
/// When that is over.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 5, "timed out: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn spec(script: &str, id: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "bundle",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "cgroupsPath": format!("/coracle-oci-test/{id}"),
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": [],
            "readonlyPaths": []
        }
    })
}

/// What scripts of tests use. The shell runs them without looking at PATH; a specification's args want names.
const APPLETS: &[&str] = &[
    "sh", "cat", "ls", "sleep", "true", "id", "stat", "echo", "touch", "mkdir", "hostname", "readlink",
    "grep", "mount", "stty", "tty", "head", "ps", "kill", "test", "umount", "ip", "ifconfig", "dd", "env",
    "wc", "rm", "ln",
];

/// Docker's defaults.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
