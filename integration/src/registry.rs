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
    /// When it does not listen within 5 s.
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
        wait::until_true(wait::SOON, "docker-registry listens", || {
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
        let reference = format!("{}/{name}", self.host());
        let mut skopeo = self.node.command("skopeo");
        skopeo
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(format!("docker://{reference}"));
        let _ = programs::stdout_of(&mut skopeo);
        reference
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
