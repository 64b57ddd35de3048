//! Processes that a test keeps beside it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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
        BufReader::new(stdout).read_line(&mut line).unwrap();
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
