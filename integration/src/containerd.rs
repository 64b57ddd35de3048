//! The peer: containerd with runc and the upstream CNI plugins, on the same node and the same kind of network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::cri::Cri;
use crate::image::Image;
use crate::node::Node;
use crate::{daemon, programs, wait};

/// The image of containerd's pause container: the payload, asleep.
const PAUSE: &str = "localhost/coracle/pause:1";

/// A running containerd; it ends with this value. Its shims end with their pods, or with the node.
#[derive(Debug)]
pub struct Containerd<'node> {
    node: &'node Node,
    folder: PathBuf,
    child: Child,
}

impl<'node> Containerd<'node> {
    /// Starts it on this network, in this cgroup.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn start(node: &'node Node, network: &Value, cgroup: &str) -> Containerd<'node> {
        let folder = node.folder("containerd");
        fs::create_dir_all(folder.join("net.d")).expect("make containerd's folders");
        fs::write(folder.join("net.d/10-pods.conflist"), network.to_string()).expect("write the network");
        fs::write(folder.join("config.toml"), configuration(&folder))
            .expect("write containerd's configuration");
        let log = fs::File::create(folder.join("containerd.log")).expect("make containerd's log");
        let tools = programs::tool("containerd")
            .parent()
            .expect("a folder")
            .to_path_buf();
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
        let child = node
            .command_in(cgroup, &programs::tool("containerd"))
            .env("PATH", path)
            .arg("--config")
            .arg(folder.join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let containerd = Containerd { node, folder, child };
        wait::until_true(wait::SOON * 3, "containerd listens", || {
            containerd.socket().exists()
        });
        containerd
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    /// A connection to its CRI.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn cri(&self) -> Cri {
        Cri::connect(&self.socket())
    }

    /// Its pid, as the machine counts.
    #[must_use]
    pub fn machine_pid(&self) -> u32 {
        self.child.id()
    }

    /// Imports the payload image and the image of the pause container.
    ///
    /// # Panics
    /// When that fails.
    pub fn import_payload(&self) {
        let pause = self.folder.join("pause.tar");
        let payload = fs::read(programs::ours("coracle-payload")).expect("read the payload");
        let mut image = Image::of_payload(PAUSE, payload);
        image.cmd = ["sleep", "1000000"].map(str::to_owned).to_vec();
        image
            .write(&mut fs::File::create(&pause).expect("make the archive"))
            .expect("write the archive");
        for archive in [pause, daemon::payload_archive(self.node)] {
            let mut ctr = self.node.command(programs::tool("ctr"));
            ctr.arg("--address")
                .arg(self.socket())
                .args(["--namespace", "k8s.io", "images", "import"])
                .arg(archive);
            let _ = programs::stdout_of(&mut ctr);
        }
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("containerd.log")).unwrap_or_default()
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "containerd's last lines:\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Upstream's defaults, but for the folders and for what this kind of machine forces: without CAP_SYS_RESOURCE an
/// oom_score_adj cannot be lowered.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    let runc = programs::tool("runc");
    let plugins = programs::tool("cni/bridge");
    format!(
        "version = 3
root = '{folder}/root'
state = '{folder}/state'
[grpc]
  address = '{folder}/containerd.sock'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{plugins}']
  conf_dir = '{folder}/net.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '{runc}'
  SystemdCgroup = false
",
        runc = runc.display(),
        plugins = plugins.parent().expect("a folder").display(),
    )
}
