//! A real registry (docker-registry) on loopback, filled by skopeo.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Built;

/// user:secret for htpasswd.
const HTPASSWD: &str = "user:$2b$04$NW4Bh4qjO0hdr6ixeyTwUOhgJcsRoJMtjVDiD0Vldryx52dS6OrJm\n";

pub struct Registry {
    child: Child,
    directory: tempfile::TempDir,
    pub address: String,
}

impl Registry {
    pub fn start() -> Self {
        Self::with(tempfile::tempdir().unwrap(), "", "")
    }

    /// Wants user:secret.
    pub fn with_password() -> Self {
        Self::with(
            tempfile::tempdir().unwrap(),
            "",
            "auth: {htpasswd: {realm: test, path: htpasswd}}\n",
        )
    }

    /// Speaks TLS with a certificate that it signed itself, which is the file returned. `authority`: whether that says of itself
    /// that it is one.
    pub fn with_tls(authority: bool) -> (Self, PathBuf) {
        Self::with_key(authority, &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
    }

    /// With a key of this kind, in the words of `openssl req -newkey`.
    pub fn with_key(authority: bool, key: &[&str]) -> (Self, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        make_certificate(directory.path(), authority, key);
        let registry = Self::with(directory, ", tls: {certificate: own.pem, key: key.pem}", "");
        let authority = registry.directory.path().join("own.pem");
        (registry, authority)
    }

    fn with(directory: tempfile::TempDir, http: &str, more: &str) -> Self {
        std::fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: data}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"127.0.0.1:0\"{http}}}\n{more}"
        );
        std::fs::write(directory.path().join("config.yml"), config).unwrap();
        let log = directory.path().join("log");
        let child = Command::new("docker-registry")
            .args(["serve", "config.yml"])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("docker-registry is installed");
        let mut registry = Self {
            child,
            directory,
            address: String::new(),
        };
        registry.address = registry.wait_for_address(&log);
        registry
    }

    /// The kernel chose the port, so that nobody else can have it; the log tells which.
    fn wait_for_address(&mut self, log: &Path) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let said = std::fs::read_to_string(log).unwrap();
            let after = said.split_once("listening on ").map(|(_, after)| after);
            let address = after.and_then(|after| after.split_once([',', '"', ' ', '\n']));
            if let Some((address, _)) = address {
                return address.to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "docker-registry does not listen ({ended:?}): {said}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Pushes an image; `extra` are options of skopeo copy.
    pub fn push(&self, built: &Built, name: &str, extra: &[&str]) {
        let layout = tempfile::tempdir_in(self.directory.path()).unwrap();
        built.write_layout(layout.path(), Some("latest"));
        self.copy(&format!("oci:{}:latest", layout.path().display()), name, extra);
    }

    pub fn copy(&self, from: &str, name: &str, extra: &[&str]) {
        let output = Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
                "--src-tls-verify=false",
            ])
            .args(extra)
            .arg(from)
            .arg(format!("docker://{}/{name}", self.address))
            .output()
            .expect("skopeo is installed");
        assert!(
            output.status.success(),
            "skopeo: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The file that holds a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = Path::new("data/docker/registry/v2/blobs/sha256");
        self.directory
            .path()
            .join(blobs)
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }

    pub fn put_manifest(&self, name: &str, tag: &str, media_type: &str, body: &[u8]) {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "PUT /v2/{name}/manifests/{tag} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_certificate(directory: &Path, authority: bool, key: &[&str]) {
    let authority = if authority { "TRUE" } else { "FALSE" };
    let output = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-newkey"])
        .args(key)
        .args([
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=DNS:localhost,DNS:reg.invalid,IP:127.0.0.1",
        ])
        .args([
            "-addext",
            &format!("basicConstraints=critical,CA:{authority}"),
            "-keyout",
            "key.pem",
            "-out",
            "own.pem",
        ])
        .current_dir(directory)
        .output()
        .expect("openssl is installed");
    assert!(
        output.status.success(),
        "openssl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
