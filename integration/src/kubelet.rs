//! The real kubelet, alone on the node: no API server, its pods are the manifests in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::node::Node;
use crate::{cgroups, programs, wait};

/// Ports on the node's own loopback.
const PORT: u16 = 10250;
const READ_ONLY_PORT: u16 = 10255;
const HEALTHZ_PORT: u16 = 10248;

/// The kubelet names static pods after the manifest and the node.
pub const HOSTNAME: &str = "node";

/// A running kubelet; it ends with this value, or with the node.
#[derive(Debug)]
pub struct Kubelet<'node> {
    node: &'node Node,
    folder: PathBuf,
    child: Child,
}

impl<'node> Kubelet<'node> {
    /// Starts it on a CRI socket; its cgroups go below the node's.
    ///
    /// # Panics
    /// When it is not healthy within a minute.
    #[must_use]
    pub fn start(node: &'node Node, socket: &Path) -> Kubelet<'node> {
        let folder = node.folder("kubelet");
        let root = cgroup_root(node);
        cgroups::create(&root).expect("make the kubelet's cgroups");
        for name in ["manifests", "root", "pki", "logs", "volume-plugins"] {
            fs::create_dir_all(folder.join(name)).expect("make the kubelet's folders");
        }
        fs::write(
            folder.join("config.json"),
            configuration(&folder, socket, &root).to_string(),
        )
        .expect("config.json");
        let log = fs::File::create(folder.join("kubelet.log")).expect("make the kubelet's log");
        let child = node
            .command(programs::tool("kubelet"))
            .arg("--config")
            .arg(folder.join("config.json"))
            .arg("--root-dir")
            .arg(folder.join("root"))
            .arg("--cert-dir")
            .arg(folder.join("pki"))
            .args(["--hostname-override", HOSTNAME, "--v=2"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start the kubelet");
        let kubelet = Kubelet { node, folder, child };
        wait::until_true(wait::START, "the kubelet is healthy", || {
            kubelet
                .get(&format!("http://127.0.0.1:{HEALTHZ_PORT}/healthz"))
                .is_ok_and(|said| said == "ok")
        });
        kubelet
    }

    /// Makes a manifest one of its pods.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn add(&self, name: &str, manifest: &Value) {
        // The kubelet reads the folder while it is written to: a new file appears whole.
        let draft = self.folder.join(format!("{name}.draft"));
        fs::write(&draft, manifest.to_string()).expect("write the manifest");
        fs::rename(draft, self.manifest(name)).expect("move the manifest into place");
    }

    /// Takes a manifest away.
    ///
    /// # Panics
    /// When it is not there.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.manifest(name)).expect("remove the manifest");
    }

    /// What it says about a static pod: the Pod object with its status, once there is one.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<Value> {
        let pods: Value = serde_json::from_str(&self.read_only("/pods").ok()?).ok()?;
        let wanted = format!("{name}-{HOSTNAME}");
        pods["items"]
            .as_array()?
            .iter()
            .find(|pod| pod["metadata"]["name"] == wanted.as_str())
            .cloned()
    }

    /// Waits until a pod is as `is` wants it; gives it.
    ///
    /// # Panics
    /// With what the kubelet says about the pod when that does not come.
    #[must_use]
    pub fn wait_for_pod(
        &self,
        name: &str,
        bound: Duration,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Value {
        let waited = wait::until(bound, || match self.pod(name) {
            Some(pod) if is(&pod) => Ok(pod),
            other => Err(other.map(|pod| pod["status"].to_string())),
        });
        waited.unwrap_or_else(|last| panic!("{name} not within {bound:?}: {what}; the kubelet says {last:?}"))
    }

    /// Runs a command in a container of a static pod, through the kubelet's own server.
    ///
    /// # Errors
    /// What curl says.
    pub fn run(&self, pod: &str, container: &str, command: &str) -> Result<String, String> {
        let url = format!("https://127.0.0.1:{PORT}/run/default/{pod}-{HOSTNAME}/{container}");
        self.curl(&[
            "--insecure",
            "--request",
            "POST",
            "--get",
            "--data-urlencode",
            &format!("cmd={command}"),
            &url,
        ])
    }

    /// Reads a container's log through the kubelet's server.
    ///
    /// # Errors
    /// What curl says.
    pub fn log_of(&self, pod: &str, container: &str) -> Result<String, String> {
        self.curl(&[
            "--insecure",
            &format!("https://127.0.0.1:{PORT}/containerLogs/default/{pod}-{HOSTNAME}/{container}"),
        ])
    }

    /// Something from the read-only port: `/pods`, `/stats/summary`.
    ///
    /// # Errors
    /// What curl says.
    pub fn read_only(&self, path: &str) -> Result<String, String> {
        self.get(&format!("http://127.0.0.1:{READ_ONLY_PORT}{path}"))
    }

    /// Ends it, and takes away what it leaves: it binds its root folder onto itself, and made its own cgroups.
    ///
    /// # Panics
    /// When something of it stays.
    pub fn stop(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let root = self.folder.join("root");
        let mounts = fs::read_to_string("/proc/1/mountinfo").expect("the node's mountinfo");
        let mut points: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| Path::new(point).starts_with(&root))
            .collect();
        points.reverse();
        for point in points {
            self.node.does(&["umount", point]);
        }
        cgroups::remove(&cgroup_root(self.node)).expect("remove the kubelet's cgroups");
        for directory in cgroups::directories(self.node.cgroup()) {
            // Others may have some there, and then it stays for the leak check to see.
            let _ = fs::remove_dir(directory);
        }
        for folder in ["/var/lib/kubelet", "/var/log/containers", "/var/log/pods"] {
            let _ = fs::remove_dir_all(folder);
        }
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.folder.join("manifests").join(format!("{name}.json"))
    }

    fn get(&self, url: &str) -> Result<String, String> {
        self.curl(&[url])
    }

    fn curl(&self, words: &[&str]) -> Result<String, String> {
        let mut curl = self.node.command("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "60"])
            .args(words);
        let output = programs::output_of(&mut curl);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(programs::said(&curl, &output))
        }
    }
}

impl Drop for Kubelet<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("kubelet.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "the kubelet's last lines:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cgroup_root(node: &Node) -> String {
    format!("{}/kubelet", node.cgroup())
}

fn configuration(folder: &Path, socket: &Path, cgroup_root: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "address": "127.0.0.1",
        "port": PORT,
        "readOnlyPort": READ_ONLY_PORT,
        "healthzPort": HEALTHZ_PORT,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_root,
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        // Chains that only kube-proxy looks at; the kubelet never removes them.
        "makeIPTablesUtilChains": false,
        "staticPodPath": folder.join("manifests"),
        "fileCheckFrequency": "1s",
        "syncFrequency": "5s",
        "containerRuntimeEndpoint": format!("unix://{}", socket.display()),
        "podLogsDir": folder.join("logs"),
        "volumePluginDir": folder.join("volume-plugins"),
        // Else the statistics of the pods' network come from cAdvisor, which only knows containerd's and CRI-O's sockets.
        "featureGates": { "PodAndContainerStatsFromCRI": true },
    })
}
