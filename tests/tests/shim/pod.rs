//! A shim with a busybox root, in a mount namespace of the test's own, and a leak check at its end.

use std::fs;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coracle_shim_api::pod::{ContainerState, CreateContainerRequest, Overlay, StartPodRequest};
use coracle_shim_api::{Client, RpcError, bind};
use coracle_tests::wait::{PATIENCE, wait_for};
use coracle_tests::{busybox, cgroup, program};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// A running shim and what the daemon would keep for it.
pub(crate) struct Pod {
    pub(crate) client: Client,
    pub(crate) shim: Child,
    /// When it was started.
    pub(crate) spawned: Instant,
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: String,
    pub(crate) netns: PathBuf,
    mounts_before: String,
    _scratch: tempfile::TempDir,
}

/// Runs a test with a shim whose pod has not been started, on a thread with a mount namespace of its own. After it the
/// shim is told to leave, and nothing may be left.
pub(crate) fn with_shim<F: Future<Output = Pod>>(test: impl FnOnce(Pod) -> F + Send + 'static) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "the shim's tests make namespaces, mounts and cgroups: run them as root"
    );
    let done = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        executor.block_on(async {
            let pod = test(Pod::spawn(&[]).await).await;
            pod.leave().await;
        });
    });
    if let Err(panic) = done.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Pod {
    /// Starts a shim, with a state directory of 200 characters.
    pub(crate) async fn spawn(extra: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = tempfile::Builder::new()
            .prefix("coracle-shim-test-")
            .tempdir()
            .unwrap();
        let mut dir = scratch.path().join("state");
        while dir.as_os_str().len() < 200 {
            dir.push("deep");
        }
        fs::create_dir_all(&dir).unwrap();
        busybox::make_root(&scratch.path().join("store/1"));
        let cgroup = format!("/coracle-shim-test-{name}");
        let mounts_before = mounts();
        let socket = bind(&dir.join("shim.sock")).unwrap();
        let mut command = command("coracle-shim", socket.into());
        command
            .args([
                "--id",
                "sandbox",
                "--cgroup",
                &format!("{cgroup}/shims"),
                "--state-dir",
            ])
            .arg(&dir)
            .args(extra);
        command.stdout(Stdio::null());
        let spawned = Instant::now();
        let shim = command.spawn().unwrap();
        let client = Client::connect(&dir.join("shim.sock")).unwrap();
        let netns = scratch.path().join("netns/pod");
        Self {
            client,
            shim,
            spawned,
            dir,
            cgroup,
            netns,
            mounts_before,
            _scratch: scratch,
        }
    }

    pub(crate) fn scratch(&self) -> &Path {
        self._scratch.path()
    }

    /// What the daemon asks for without a word from the user.
    pub(crate) fn request(&self) -> StartPodRequest {
        StartPodRequest {
            sandbox_id: "sandbox".into(),
            hostname: "the-pod".into(),
            netns_path: self.netns.to_str().unwrap().into(),
            pod_cgroup: format!("{}/pod", self.cgroup),
            remove_pod_cgroup: true,
            ..Default::default()
        }
    }

    /// Does a call; whatever it was, the shim has one thread after it.
    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<T, RpcError> {
        let result = tokio::time::timeout(PATIENCE, call)
            .await
            .expect("the call ends in time");
        if let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.shim.id())) {
            assert_eq!(tasks.count(), 1, "the shim has one thread");
        }
        result
    }

    pub(crate) async fn start_pod(&self) {
        self.call(self.client.start_pod(&self.request())).await.unwrap();
    }

    /// A request for a container that runs `script` in a shell, and where its log will be.
    pub(crate) fn container(&self, id: &str, script: &str) -> (CreateContainerRequest, PathBuf) {
        self.container_of(
            id,
            &spec(&["/bin/sh", "-c", script], &format!("{}/pod/{id}", self.cgroup)),
        )
    }

    pub(crate) fn container_of(&self, id: &str, spec: &Value) -> (CreateContainerRequest, PathBuf) {
        let bundle = self.dir.join(id);
        for part in ["rootfs", "upper", "work"] {
            fs::create_dir_all(bundle.join(part)).unwrap();
        }
        let log = self.scratch().join(format!("logs/of pod/{id}.log"));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let overlay = Overlay {
            store: text(&self.scratch().join("store")),
            lower: vec!["1".into()],
            upper: text(&bundle.join("upper")),
            work: text(&bundle.join("work")),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            id: id.into(),
            spec: serde_json::to_vec(spec).unwrap(),
            overlay: Some(overlay).into(),
            log_path: text(&log),
            share_shm: true,
            bundle: text(&bundle),
            ..Default::default()
        };
        (request, log)
    }

    /// Creates and starts; the path of the log.
    pub(crate) async fn run(&self, id: &str, script: &str) -> PathBuf {
        let (request, log) = self.container(id, script);
        self.call(self.client.create_container(&request)).await.unwrap();
        self.call(self.client.start_container(id)).await.unwrap();
        log
    }

    pub(crate) async fn wait(&self, id: &str) -> ContainerState {
        self.call(self.client.wait_container(id)).await.unwrap()
    }

    /// Runs a command to its end: standard output, error, exit code.
    pub(crate) async fn exec(&self, id: &str, args: &[&str]) -> Result<(Vec<u8>, Vec<u8>, i32), RpcError> {
        self.call(async {
            let mut exec = self.client.exec(&exec_request(id, args)).await?;
            let (mut out, mut err) = (Vec::new(), Vec::new());
            while let Some(piece) = exec.next().await? {
                out.extend(piece.stdout);
                err.extend(piece.stderr);
                if piece.exited {
                    return Ok((out, err, piece.exit_code));
                }
            }
            panic!("the stream ended without an exit");
        })
        .await
    }

    /// Lets go of the connection as a dying daemon would, and connects again after `meanwhile`.
    pub(crate) async fn reconnect(&mut self, pause: Duration, meanwhile: impl FnOnce()) {
        // The last handle on the old connection goes when the new one replaces it; a spare keeps the field filled.
        let spare = self.dir.join("spare.sock");
        let _listener = bind(&spare).unwrap();
        self.client = Client::connect(&spare).unwrap();
        tokio::time::sleep(pause).await;
        meanwhile();
        self.client = Client::connect(&self.dir.join("shim.sock")).unwrap();
    }

    /// Ends everything in the pod's cgroup and removes it.
    pub(crate) fn end_by_cgroup(&self) {
        for dir in cgroup::directories(&format!("{}/pod", self.cgroup)) {
            kill_below(&dir);
        }
    }

    /// Another shim in the place of one that is gone, for the end of the test.
    pub(crate) async fn restart(self) -> Self {
        let fresh = Self::spawn(&[]).await;
        self.end_by_cgroup();
        for dir in cgroup::directories(&self.cgroup) {
            kill_below(&dir);
        }
        fresh
    }

    /// Tells the shim to go, and looks for what it left.
    pub(crate) async fn leave(mut self) {
        self.call(self.client.shutdown()).await.unwrap();
        self.left_nothing();
    }

    pub(crate) fn left_nothing(&mut self) {
        self.left_nothing_but_mounts();
        assert_eq!(mounts(), self.mounts_before, "mounts are left");
    }

    /// The same where other pods of the test still run.
    pub(crate) fn left_nothing_but_mounts(&mut self) {
        let status = wait_for("the shim's exit", || self.shim.try_wait().unwrap());
        assert!(status.success(), "the shim left with {status}");
        // Its own cgroup is the daemon's to remove.
        for dir in cgroup::directories(&format!("{}/shims", self.cgroup)) {
            wait_for("the shim's cgroup to be empty", || fs::remove_dir(&dir).ok());
        }
        for dir in cgroup::directories(&self.cgroup) {
            let left: Vec<_> = fs::read_dir(&dir)
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().path().is_dir())
                .collect();
            assert!(left.is_empty(), "cgroups left: {left:?}");
            fs::remove_dir(&dir).unwrap();
        }
        assert!(!self.netns.exists(), "the path of the network namespace is left");
    }
}

impl Drop for Pod {
    /// After a failed test: ends what is there.
    fn drop(&mut self) {
        let _ = self.shim.kill();
        let _ = self.shim.wait();
        let _ = nix::mount::umount2(&self.netns, nix::mount::MntFlags::MNT_DETACH);
        for dir in cgroup::directories(&self.cgroup).into_iter().rev() {
            kill_below(&dir);
        }
    }
}

/// The program, with `socket` as its descriptor 3. A shell moves it there, since a test may not use unsafe code.
fn command(program: &str, socket: OwnedFd) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exec \"$@\" 3<&0 0</dev/null", "sh"])
        .arg(program::path(program))
        .stdin(Stdio::from(socket));
    command
}

pub(crate) fn exec_request(id: &str, args: &[&str]) -> coracle_shim_api::pod::ExecRequest {
    coracle_shim_api::pod::ExecRequest {
        container_id: id.into(),
        process: serde_json::to_vec(&process(args)).unwrap(),
        ..Default::default()
    }
}

fn process(args: &[&str]) -> Value {
    let caps = [
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
    json!({
        "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
    })
}

/// A configuration as the daemon makes it, with Docker's default capabilities.
pub(crate) fn spec(args: &[&str], cgroup: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": process(args),
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}],
        },
    })
}

pub(crate) fn mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
}

fn kill_below(dir: &Path) {
    for entry in fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
    {
        kill_below(&entry.path());
    }
    for _ in 0..1000 {
        let _ = fs::write(dir.join("freezer.state"), "THAWED");
        for pid in fs::read_to_string(dir.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.parse().unwrap()),
                nix::sys::signal::SIGKILL,
            );
        }
        if fs::remove_dir(dir).is_ok() || !dir.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
