//! `coraclectl doctor`: what this node has and lacks for running pods, and the command that mends it.
//!
//! ```text
//!  files of the kernel, of /etc  --+
//!  Status of the daemon, if any  --+--> findings --> lines for a person, or JSON; exit code
//! ```
//! It changes nothing, and needs no daemon. Each area is a file; what is read is below [`Host`], so that tests can have
//! hosts of their own.

mod cgroups;
mod cni;
mod daemon;
mod directories;
mod finding;
mod kernel;
mod limits;
mod network;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::client::Client;
use super::table;
use finding::{Finding, State};

/// Looks at this node and says what is good, degraded or broken, and what mends it. Exits with 1 if anything is broken.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A JSON array instead of lines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Error)]
pub(crate) enum DoctorError {
    #[error("write the findings")]
    Write(#[from] io::Error),
    #[error("write the findings as JSON")]
    Json(#[from] serde_json::Error),
}

/// Where the node's files are: `/`, or a directory of a test.
#[derive(Debug, Clone)]
struct Host(PathBuf);

impl Host {
    fn path(&self, absolute: &str) -> PathBuf {
        self.0.join(absolute.trim_start_matches('/'))
    }

    /// Its text without the last newline; `None` when there is no such file.
    fn read(&self, absolute: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(absolute)).ok()?;
        Some(text.trim_end().to_owned())
    }

    fn number(&self, absolute: &str) -> Option<u64> {
        self.read(absolute)?.trim().parse().ok()
    }
}

pub(crate) async fn run(client: &Client, arguments: &Arguments) -> Result<u8, DoctorError> {
    let host = Host(PathBuf::from("/"));
    let (mut findings, places) = daemon::look(client).await;
    findings.splice(0..0, of_the_host(&host));
    findings.extend(directories::look(&places));
    findings.extend(cni::look(&places));
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &findings)?;
        table::unless_closed(io::Write::write_all(&mut out, b"\n"))?;
    } else {
        table::unless_closed(print(&mut out, &findings))?;
    }
    Ok(u8::from(
        findings.iter().any(|finding| finding.state == State::Broken),
    ))
}

fn of_the_host(host: &Host) -> Vec<Finding> {
    let areas = [kernel::look, cgroups::look, network::look, limits::look];
    areas.into_iter().flat_map(|area| area(host)).collect()
}

/// A line each; what mends it comes in a line of its own, to be copied.
fn print(to: &mut impl io::Write, findings: &[Finding]) -> io::Result<()> {
    let mut rows = Vec::new();
    for finding in findings {
        let state = finding.state.word().to_owned();
        rows.push(vec![
            state,
            finding.area.to_owned(),
            finding.what.clone(),
            finding.says.clone(),
        ]);
    }
    let mut lines = Vec::new();
    table::write(&mut lines, &rows)?;
    let text = String::from_utf8_lossy(&lines);
    for (line, finding) in text.lines().zip(findings) {
        writeln!(to, "{line}")?;
        if let Some(mend) = &finding.mend {
            writeln!(to, "           mend: {mend}")?;
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    writeln!(
        to,
        "{} good, {} degraded, {} broken",
        count(State::Good),
        count(State::Degraded),
        count(State::Broken)
    )?;
    to.flush()
}

/// Directories and files of the daemon: as it says, or where they are without a word from it.
#[derive(Debug, Clone)]
struct Places {
    root: PathBuf,
    state: PathBuf,
    cni_conf_dir: PathBuf,
    cni_bin_dir: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            root: "/var/lib/coracle".into(),
            state: "/run/coracle".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dir: "/opt/cni/bin".into(),
        }
    }
}

impl Places {
    /// From the daemon's `config`; what it does not name stays.
    fn of_config(config: &serde_json::Value) -> Self {
        let own = Self::default();
        let path = |key: &str, default: &Path| {
            config
                .get(key)
                .and_then(|value| value.as_str())
                .map_or_else(|| default.to_owned(), PathBuf::from)
        };
        Self {
            root: path("root", &own.root),
            state: path("state", &own.state),
            cni_conf_dir: path("cni_conf_dir", &own.cni_conf_dir),
            cni_bin_dir: path("cni_bin_dir", &own.cni_bin_dir),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with these files.
    pub(super) fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        let host = Host(directory.path().to_owned());
        for (path, text) in files {
            let path = host.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        (directory, host)
    }

    pub(super) fn state_of(findings: &[Finding], what: &str) -> State {
        let found = findings.iter().find(|finding| finding.what == what);
        found
            .unwrap_or_else(|| panic!("nothing is said of {what}: {findings:?}"))
            .state
    }

    #[test]
    fn lines_are_aligned_and_what_mends_is_below() {
        let findings = [
            Finding::good("kernel", "version", "6.1"),
            Finding::broken("network", "bridge", "not there", "modprobe bridge"),
        ];
        let mut out = Vec::new();
        print(&mut out, &findings).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "good     kernel    version   6.1");
        assert_eq!(lines[1], "broken   network   bridge    not there");
        assert_eq!(lines[2].trim(), "mend: modprobe bridge");
        assert_eq!(lines[3], "1 good, 0 degraded, 1 broken");
    }

    #[test]
    fn an_empty_host_is_broken_and_says_so_without_a_panic() {
        let (_directory, host) = host(&[]);
        let findings = of_the_host(&host);
        assert!(findings.iter().any(|finding| finding.state == State::Broken));
        for finding in &findings {
            assert!(
                finding.state == State::Good || finding.mend.is_some(),
                "{finding:?}"
            );
        }
    }
}
