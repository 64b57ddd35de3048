//! The real critest, the conformance suite of CRI, and the images it asks for.
//!
//! ```text
//!  critest -> ginkgo -> 4 x critest --- CRI --> coracled --- pull --> docker-registry on 127.0.0.1, which holds
//!                |                                 stand-ins for the images that critest names (images.rs)
//!                `-- JSON report --> Report: what every spec came to
//! ```

mod images;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::node::{self, Node};
use crate::programs;
use crate::registry::Registry;

/// The digest critest pulls one image by. Nothing made here can have it, so a copy of the program gets the digest of our
/// image in its place.
const UPSTREAM_DIGEST: &str = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

/// How many specs run at a time; critest starts `ginkgo`, its test runner, for that.
const AT_ONCE: u32 = 4;

/// A critest whose images are in a registry.
#[derive(Debug)]
pub struct Critest<'node> {
    node: &'node Node,
    program: PathBuf,
}

impl<'node> Critest<'node> {
    /// Pushes the images and makes the copy of critest that knows the digest of one of them.
    ///
    /// # Panics
    /// When an image cannot be made or pushed.
    #[must_use]
    pub fn prepare(node: &'node Node, registry: &Registry<'_>) -> Critest<'node> {
        let digest = images::push_all(node, registry);
        let program = node.scratch().join("critest");
        fs::copy(programs::tool("critest"), &program).expect("copy critest");
        let digest = digest.trim_start_matches("sha256:");
        node.does(&[
            "sed",
            "-i",
            &format!("s/{UPSTREAM_DIGEST}/{digest}/g"),
            &program.display().to_string(),
        ]);
        Critest { node, program }
    }

    /// Runs every spec except those whose names hold one of `skipped`, in critest's own random order, some at once.
    ///
    /// # Panics
    /// When there is no report afterwards; not when specs fail.
    #[must_use]
    pub fn run(&self, socket: &Path, skipped: &[&str]) -> Report {
        let folder = self.node.folder("critest-run");
        let file = folder.join("report.json");
        let mut command = self.node.command(&self.program);
        command
            .env("TMPDIR", self.node.folder("critest-tmp"))
            .env("PATH", path_with(&programs::tool("ginkgo")))
            .current_dir(&folder)
            .arg(format!("--parallel={AT_ONCE}"))
            .arg(format!("--runtime-endpoint=unix://{}", socket.display()))
            .arg(format!("--ginkgo.json-report={}", file.display()))
            .arg("--ginkgo.no-color");
        for name in skipped {
            command.arg(format!("--ginkgo.skip={}", quoted(name)));
        }
        let output = programs::output_of(&mut command);
        let report = fs::read(&file)
            .unwrap_or_else(|error| panic!("no report: {error}\n{}", programs::said(&command, &output)));
        let suites: Vec<Suite> = serde_json::from_slice(&report).expect("the report's JSON");
        Report::of(suites)
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    specs: Vec<Spec>,
    time: Duration,
}

/// What one spec came to.
#[derive(Debug)]
pub struct Spec {
    /// Its first heading.
    pub group: String,
    /// All its headings and its own words, as `--ginkgo.skip` sees them.
    pub name: String,
    /// Passed, skipped or failed.
    pub outcome: Outcome,
    /// How long it took.
    pub time: Duration,
}

/// How a spec ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not run, or found that the runtime does not claim what it checks.
    Skipped,
    /// It did not hold; with the reason and the last that was written.
    Failed(String),
}

impl Report {
    /// The specs, by name.
    #[must_use]
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    fn of(suites: Vec<Suite>) -> Report {
        let nanoseconds = suites.iter().map(|suite| suite.run_time).sum();
        let mut specs: Vec<Spec> = suites
            .into_iter()
            .flat_map(|suite| suite.spec_reports)
            .filter(|report| report.leaf_node_type == "It" || report.failure.is_some())
            .map(SpecReport::into_spec)
            .collect();
        specs.sort_by(|one, other| one.name.cmp(&other.name));
        Report {
            specs,
            time: Duration::from_nanos(nanoseconds),
        }
    }
}

impl fmt::Display for Report {
    /// Counts for every group, the slowest specs, and the reasons of the failures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut all = Counts::default();
        for spec in &self.specs {
            groups.entry(&spec.group).or_default().add(&spec.outcome);
            all.add(&spec.outcome);
        }
        writeln!(f, "passed failed skipped")?;
        for (group, counts) in groups {
            writeln!(f, "{counts}  {group}")?;
        }
        writeln!(f, "{all}  in all, within {:.0} s", self.time.as_secs_f64())?;
        let mut slow: Vec<&Spec> = self.specs.iter().collect();
        slow.sort_by_key(|spec| Reverse(spec.time));
        for spec in slow.iter().take(3) {
            writeln!(f, "slowest: {:5.1} s {}", spec.time.as_secs_f64(), spec.name)?;
        }
        for spec in &self.specs {
            if let Outcome::Failed(reason) = &spec.outcome {
                writeln!(f, "\nFAILED {}\n{reason}", spec.name)?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped => self.skipped += 1,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6} {:6} {:7}", self.passed, self.failed, self.skipped)
    }
}

/// One suite of ginkgo's JSON report; only the fields we read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<SpecReport>,
    /// Nanoseconds.
    run_time: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecReport {
    /// The headings; null for what belongs to the whole suite.
    container_hierarchy_texts: Option<Vec<String>>,
    /// `It`, or `BeforeSuite` and the like.
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    run_time: u64,
    failure: Option<Failure>,
    #[serde(default)]
    captured_ginkgo_writer_output: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: String,
}

impl SpecReport {
    fn into_spec(self) -> Spec {
        let outcome = match (self.state.as_str(), &self.failure) {
            ("passed", _) => Outcome::Passed,
            ("skipped" | "pending", _) => Outcome::Skipped,
            (state, failure) => {
                let message = failure.as_ref().map_or(state, |failure| &failure.message);
                let written = last_lines(&self.captured_ginkgo_writer_output, 12);
                Outcome::Failed(format!("{state}: {message}\n{written}"))
            }
        };
        let headings = self.container_hierarchy_texts.unwrap_or_default();
        let group = headings.first().unwrap_or(&self.leaf_node_type).clone();
        let mut words = headings;
        words.push(self.leaf_node_text);
        Spec {
            group,
            name: words.join(" "),
            outcome,
            time: Duration::from_nanos(self.run_time),
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The system's programs, and those beside `tool`.
fn path_with(tool: &Path) -> String {
    let folder = tool.parent().expect("a tool is in a folder");
    format!("{}:{}", folder.display(), node::PATH)
}

/// `text` as a regular expression of Go that matches only it.
fn quoted(text: &str) -> String {
    let mut expression = String::new();
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            expression.push('\\');
        }
        expression.push(character);
    }
    expression
}
