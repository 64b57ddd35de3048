//! Holds the workspace to its design: which crate may know which, and where `unsafe` may stand.
//!
//! The programs never link each other; they meet at CRI, CNI, OCI and `shim/api`. A new edge is a change of the design:
//! it belongs into ARCHITECTURE.md first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; the lint only knows functions with #[test]"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every crate of the workspace with the workspace crates it may depend on, in any way (also for its tests).
const ALLOWED: &[(&str, &[&str])] = &[
    ("coracle-linux", &[]),
    ("coracle-shim-api", &[]),
    ("coracle-cni-protocol", &[]),
    ("coracle-runtime", &["coracle-linux"]),
    ("coracle-images", &["coracle-linux"]),
    (
        "coracle-shim",
        &["coracle-runtime", "coracle-linux", "coracle-shim-api"],
    ),
    ("coracle-cni", &["coracle-linux", "coracle-cni-protocol"]),
    (
        "coracle-cri",
        &[
            "coracle-linux",
            "coracle-cni-protocol",
            "coracle-images",
            "coracle-shim-api",
        ],
    ),
    ("coracle-tests", &["coracle-cni-protocol", "coracle-shim-api"]),
    ("coracle-integration", &[]),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "types", "core", "misc"];

#[test]
fn crates_depend_only_on_what_the_design_allows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(name, edges)| (*name, edges.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for package in workspace_packages() {
        let name = text(&package, "name");
        seen.insert(name.clone());
        let Some(edges) = allowed.get(name.as_str()) else {
            wrong.push(format!("{name}: not a crate of the design"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = text(dependency, "name");
            let ours = dependency["source"].is_null();
            if ours && !edges.contains(target.as_str()) {
                wrong.push(format!("{name} -> {target}: not an edge of the design"));
            }
            if ours && !allowed.contains_key(target.as_str()) {
                wrong.push(format!("{name} -> {target}: a path outside the workspace"));
            }
        }
    }
    for name in allowed.keys() {
        if !seen.contains(*name) {
            wrong.push(format!("{name}: in the design, but not in the workspace"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let without: Vec<_> = workspace_packages()
        .iter()
        .map(|package| PathBuf::from(text(package, "manifest_path")))
        .filter(|manifest| {
            !std::fs::read_to_string(manifest)
                .unwrap()
                .contains("[lints]\nworkspace = true")
        })
        .collect();
    assert!(without.is_empty(), "no `[lints] workspace = true` in {without:?}");
}

#[test]
fn unsafe_code_is_allowed_only_in_linux() {
    let mut wrong = Vec::new();
    for file in sources() {
        let inside = file.strip_prefix(root()).unwrap();
        if inside.starts_with("linux") || inside == Path::new("tests/tests/crate_graph.rs") {
            continue;
        }
        let source = std::fs::read_to_string(&file).unwrap();
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let permits = ["allow(", "expect(", "warn("]
                .iter()
                .any(|word| code.contains(word))
                && code.contains("unsafe_code");
            if permits || code.contains("unsafe {") {
                wrong.push(format!("{}:{}: {}", inside.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe belongs into linux/:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn modules_are_named_after_what_they_are() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|file| {
            let stem = file
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            let folder = file
                .parent()
                .and_then(Path::file_name)
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            EMPTY_NAMES.contains(&stem) || EMPTY_NAMES.contains(&folder)
        })
        .collect();
    assert!(wrong.is_empty(), "names that say nothing: {wrong:?}");
}

fn workspace_packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata starts");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = workspace_packages()
        .iter()
        .filter_map(|package| {
            PathBuf::from(text(package, "manifest_path"))
                .parent()
                .map(Path::to_path_buf)
        })
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !hidden && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is a folder of the workspace")
}

fn text(value: &serde_json::Value, key: &str) -> String {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is a string"))
        .to_owned()
}
