//! A registry on the node's loopback: Debian's docker-registry, with images pushed by skopeo.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::node::Node;
use crate::{programs, wait};

/// Each node has a loopback of its own, so the port is free.
const PORT: u16 = 5000;

/// A running registry; it ends with this value, or with the node.
#[derive(Debug)]
pub struct Registry<'node> {
    node: &'node Node,
    child: Child,
}

impl<'node> Registry<'node> {
    /// Starts an empty registry that speaks plain HTTP.
    ///
    /// # Panics
    /// When it does not listen within a minute.
    #[must_use]
    pub fn start(node: &'node Node) -> Registry<'node> {
        let folder = node.folder("registry");
        let configuration = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{PORT}\n",
            folder.join("data").display()
        );
        fs::write(folder.join("config.yml"), configuration).expect("write the registry's configuration");
        let log = fs::File::create(folder.join("registry.log")).expect("make the registry's log");
        let child = node
            .command("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        wait::until_true(wait::START, "docker-registry listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_ok()
        });
        Registry { node, child }
    }

    /// `HOST:PORT`, the first part of an image's name there.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{PORT}")
    }

    /// Pushes an OCI archive as `NAME:TAG`; the full reference.
    ///
    /// # Panics
    /// When skopeo fails.
    #[must_use]
    pub fn push(&self, archive: &Path, name: &str) -> String {
        let _ = self.push_for_digest(archive, name);
        format!("{}/{name}", self.host())
    }

    /// As [`Registry::push`]; the digest of the manifest that the registry holds.
    ///
    /// # Panics
    /// When skopeo fails.
    #[must_use]
    pub fn push_for_digest(&self, archive: &Path, name: &str) -> String {
        let digest = self.node.folder("registry").join("digest");
        let mut skopeo = self.node.command("skopeo");
        skopeo
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .arg("--digestfile")
            .arg(&digest)
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(format!("docker://{}/{name}", self.host()));
        let _ = programs::stdout_of(&mut skopeo);
        let digest = fs::read_to_string(digest).expect("read the digest that skopeo wrote");
        digest.trim_end().to_owned()
    }

    /// Makes a daemon with this `--registry-config-dir` ask here for names on `host`; `_default` stands for every host.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn mirror(&self, configuration: &Path, host: &str) {
        let folder = configuration.join(host);
        let hosts = format!(
            "[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
            self.host()
        );
        fs::create_dir_all(&folder).expect("make the folder of the mirror");
        fs::write(folder.join("hosts.toml"), hosts).expect("write the mirror's hosts.toml");
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
