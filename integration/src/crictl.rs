//! The real crictl.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::node::Node;
use crate::programs;

/// A crictl that speaks to one socket.
#[derive(Debug)]
pub struct Crictl<'node> {
    node: &'node Node,
    address: String,
}

impl<'node> Crictl<'node> {
    /// For a socket.
    #[must_use]
    pub fn new(node: &'node Node, socket: &Path) -> Crictl<'node> {
        Crictl {
            node,
            address: format!("unix://{}", socket.display()),
        }
    }

    /// The command, for a test that wants to look at how it fails.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.node.command(programs::tool("crictl"));
        command.args([
            "--runtime-endpoint",
            &self.address,
            "--image-endpoint",
            &self.address,
        ]);
        command.args(["--timeout", "100s"]).args(words);
        command
    }

    /// Runs it; its standard output without the last line's end.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> String {
        programs::stdout_of(&mut self.command(words))
            .trim_end()
            .to_owned()
    }

    /// Runs it for what it does.
    ///
    /// # Panics
    /// When it fails.
    pub fn does(&self, words: &[&str]) {
        let _ = self.run(words);
    }

    /// Runs it with `-o json` and reads that.
    ///
    /// # Panics
    /// When it fails or prints something else.
    #[must_use]
    pub fn json(&self, words: &[&str]) -> Value {
        let said = self.run(&[&words[..1], &["-o", "json"], &words[1..]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("crictl {words:?}: {error}: {said}"))
    }
}
