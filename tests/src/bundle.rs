//! OCI bundles with a busybox root, and the `coracle` command on them.
//!
//! Every bundle is its own world: directory, state directory, cgroup below `/coracle-oci-test`. When it goes out of
//! scope its container is deleted, and the test fails if anything of it is left.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::program::{Said, coracle};
use crate::{busybox, cgroup};

/// A bundle and the container made of it.
#[derive(Debug)]
pub struct Bundle {
    dir: tempfile::TempDir,
    /// The container's name.
    pub id: String,
    /// The path of the container's cgroup in every hierarchy.
    pub cgroup: String,
    /// The specification; written when a command is run.
    pub spec: Value,
}

impl Bundle {
    /// A bundle whose container runs `script` in a shell: with what an engine gives a container, but a root that can be
    /// written and nothing masked.
    #[must_use]
    pub fn new(script: &str) -> Self {
        Self::with(|_, cgroup| spec(script, cgroup))
    }

    /// A bundle whose container runs `script` in a shell, otherwise as `coracle spec` has it.
    #[must_use]
    pub fn of_spec_command(script: &str) -> Self {
        Self::with(|dir, cgroup| {
            let _ = Said::by(coracle().args(["spec", "--bundle"]).arg(dir)).ok();
            let text = std::fs::read(dir.join("config.json")).unwrap();
            let mut spec: Value = serde_json::from_slice(&text).unwrap();
            spec["process"]["terminal"] = json!(false);
            spec["process"]["args"] = json!(["sh", "-c", script]);
            spec["linux"]["cgroupsPath"] = json!(cgroup);
            spec
        })
    }

    fn with(spec: impl FnOnce(&Path, &str) -> Value) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("t{}-{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix("coracle-oci-").tempdir().unwrap();
        busybox::make_root(&dir.path().join("rootfs"));
        let cgroup = format!("/coracle-oci-test/{id}");
        let spec = spec(dir.path(), &cgroup);
        Self {
            dir,
            id,
            cgroup,
            spec,
        }
    }

    /// A path in the bundle's directory; that itself for "".
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        below(self.dir.path(), name)
    }

    /// A path in the root file system; that itself for "".
    #[must_use]
    pub fn root(&self, name: &str) -> PathBuf {
        below(&self.path("rootfs"), name)
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
        let mut command = coracle();
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
            .arg("--root")
            .arg(self.path("state"))
            .args(args.iter().map(AsRef::as_ref));
        command
    }

    /// Runs a command of `coracle` to its end.
    pub fn say<S: AsRef<str>>(&self, args: &[S]) -> Said {
        Said::by(&mut self.coracle(args))
    }

    /// Runs a command of `coracle` on this container: `id` is appended.
    pub fn call(&self, args: &[&str]) -> Said {
        self.say(&[args, &[self.id.as_str()]].concat())
    }

    /// Like [`call`](Self::call), and it must succeed; gives its output.
    pub fn ok(&self, args: &[&str]) -> String {
        self.call(args).ok()
    }

    /// Like [`call`](Self::call), and it must fail with code 1; gives what it said.
    pub fn fails(&self, args: &[&str]) -> String {
        self.call(args).refused(1)
    }

    /// Runs the container to its end; it must succeed.
    pub fn run(&self) -> String {
        self.ok(&["run"])
    }

    /// Creates the container with its output in `out` and gives the id of its first process.
    pub fn create(&self) -> u32 {
        let pid_file = self.path("pid");
        self.write_out(&["create", "--pid-file", pid_file.to_str().unwrap(), &self.id]);
        std::fs::read_to_string(pid_file).unwrap().parse().unwrap()
    }

    /// Runs the container detached, with its output in `out`.
    pub fn start(&self) {
        self.write_out(&["run", "--detach", &self.id]);
    }

    /// A container keeps the streams that it is given: a pipe would not end with the command.
    fn write_out(&self, args: &[&str]) {
        let out = std::fs::File::create(self.path("out")).unwrap();
        // Errors of the command and of the container's payload both end up in the file.
        let mut command = self.coracle(args);
        let status = command.stdout(out.try_clone().unwrap()).stderr(out).status();
        assert!(status.unwrap().success(), "{}", self.output());
    }

    /// What a container of [`create`](Self::create) or [`start`](Self::start) has printed.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.path("out")).unwrap()
    }

    /// `exec` of a shell script.
    pub fn exec(&self, script: &str) -> Said {
        self.exec_with(&[], &["sh", "-c", script])
    }

    /// `exec` with flags.
    pub fn exec_with(&self, flags: &[&str], command: &[&str]) -> Said {
        self.say(&[&["exec"], flags, &[self.id.as_str()], command].concat())
    }

    /// The state as `coracle state` prints it.
    #[must_use]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state"])).unwrap()
    }

    /// The directories of the container's cgroup.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        cgroup::directories(&self.cgroup)
    }

    /// The directory of its cgroup in the hierarchy of a v1 controller.
    #[must_use]
    pub fn cgroup_dir(&self, controller: &str) -> PathBuf {
        let hierarchy = cgroup::hierarchy(controller).expect("the controller is mounted");
        hierarchy.join(self.cgroup.trim_start_matches('/'))
    }

    /// The text of a control file of a v1 controller.
    #[must_use]
    pub fn control(&self, controller: &str, file: &str) -> String {
        let path = self.cgroup_dir(controller).join(file);
        let text = std::fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }

    /// Fails when something of the container is left.
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let state = std::fs::read_dir(self.path("state")).map(|entries| entries.count());
        assert_eq!(state.unwrap_or(0), 0, "in the state directory");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "{mounts}");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let deleted = self.call(&["delete", "--force"]);
        if !std::thread::panicking() {
            let _ = deleted.ok();
            self.assert_nothing_left();
        }
        for parent in cgroup::directories("/coracle-oci-test") {
            // Of all bundles; the last one succeeds.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

fn below(dir: &Path, name: &str) -> PathBuf {
    match name {
        "" => dir.to_owned(),
        name => dir.join(name),
    }
}

fn spec(script: &str, cgroup: &str) -> Value {
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
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": [],
            "readonlyPaths": []
        }
    })
}

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
