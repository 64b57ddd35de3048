//! Holds the workspace to its design: which crate may know which, where `unsafe` may stand, how modules know each other,
//! how long files and functions are, what an error says, what the documents name.
//!
//! The programs never link each other; they meet at CRI, CNI, OCI and `shim/api`. A new edge is a change of the design:
//! it belongs into ARCHITECTURE.md first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use circles::Circle;
use module_tree::Tree;

mod circles;
mod error_texts;
mod module_tree;
mod named_paths;
mod sizes;

/// Every crate of the workspace with the workspace crates it may depend on, in any way (also for its tests).
const ALLOWED: &[(&str, &[&str])] = &[
    ("coracle-linux", &[]),
    ("coracle-shim-api", &["coracle-linux"]),
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
            "coracle-cri-api",
        ],
    ),
    ("coracle-cri-api", &[]),
    ("coracle-ctl", &["coracle-cri-api", "coracle-linux"]),
    ("coracle-tests", &["coracle-cni-protocol", "coracle-shim-api"]),
    ("coracle-integration", &[]),
];

/// Crates that are nothing but tests and what drives them.
const TEST_CRATES: &[&str] = &["coracle-tests", "coracle-integration"];

/// Files of the product end here, tests in them not counted.
const MOST_LINES_OF_A_FILE: usize = 400;

/// Functions end here, from signature to closing brace.
const MOST_LINES_OF_A_FUNCTION: usize = 60;

/// Circles that stand, as crate, parent module, members: each of them needs its reason.
const KNOWN_CIRCLES: &[(&str, &str, &[&str])] = &[];

/// Files that are longer.
const KNOWN_LONG_FILES: &[&str] = &[];

/// Functions that are longer, as `file:line name` begins.
const KNOWN_LONG_FUNCTIONS: &[&str] = &[];

/// Folders in which error texts still have their causes in them.
const KNOWN_REPEATED_CAUSES: &[&str] = &[];

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

/// Stands at the root of each crate of the product: the table of the workspace holds for the crates of tests, too.
const NO_PANICS: &str = "#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]";

#[test]
fn no_crate_of_the_product_may_panic() {
    let mut without = Vec::new();
    for package in workspace_packages() {
        let of_tests = TEST_CRATES.contains(&package["name"].as_str().unwrap());
        for target in package["targets"].as_array().unwrap() {
            let kind = target["kind"][0].as_str().unwrap();
            let root = text(target, "src_path");
            let denied = std::fs::read_to_string(&root).unwrap().contains(NO_PANICS);
            if !of_tests && ["lib", "bin"].contains(&kind) && !denied {
                without.push(root);
            }
        }
    }
    assert!(without.is_empty(), "no `{NO_PANICS}` in {without:?}");
}

#[test]
fn unsafe_code_is_allowed_only_in_linux() {
    let mut wrong = Vec::new();
    for file in sources() {
        let inside = file.strip_prefix(root()).unwrap();
        if inside.starts_with("linux") || inside == Path::new("tests/tests/crate_graph/main.rs") {
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

#[test]
fn sibling_modules_do_not_import_each_other_in_a_circle() {
    let unknown: Vec<String> = survey()
        .circles
        .iter()
        .filter(|(package, circle)| {
            !KNOWN_CIRCLES.iter().any(|(of, parent, members)| {
                of == package && *parent == circle.parent.join("::") && circle.is_within(members)
            })
        })
        .map(|(package, circle)| format!("{package}, {circle}"))
        .collect();
    assert!(
        unknown.is_empty(),
        "modules that know each other in a circle:\n{}",
        unknown.join("\n")
    );
}

#[test]
fn no_file_is_longer_than_one_reads() {
    none_above(MOST_LINES_OF_A_FILE, &survey().files, KNOWN_LONG_FILES);
}

#[test]
fn no_function_is_longer_than_a_thought() {
    none_above(
        MOST_LINES_OF_A_FUNCTION,
        &survey().functions,
        KNOWN_LONG_FUNCTIONS,
    );
}

#[test]
fn no_error_text_repeats_its_cause() {
    let unknown = unknown(survey().error_texts.iter().cloned(), KNOWN_REPEATED_CAUSES);
    assert!(
        unknown.is_empty(),
        "errors whose text has the cause in it, which the printer of the chain adds:\n{}",
        unknown.join("\n")
    );
}

#[test]
fn documents_name_what_exists() {
    let missing = named_paths::missing(root());
    assert!(missing.is_empty(), "there is no\n{}", missing.join("\n"));
}

#[test]
fn every_decision_is_in_the_list() {
    let unlisted = named_paths::unlisted_decisions(root());
    assert!(unlisted.is_empty(), "docs/decisions/README.md lacks {unlisted:?}");
}

fn none_above(most: usize, lines: &[(String, usize)], known: &[&str]) {
    let long = lines
        .iter()
        .filter(|(_, lines)| *lines > most)
        .map(|(name, lines)| format!("{name}: {lines} lines"));
    let unknown = unknown(long, known);
    assert!(
        unknown.is_empty(),
        "more than {most} lines:\n{}",
        unknown.join("\n")
    );
}

/// What does not begin with something that is known.
fn unknown(found: impl Iterator<Item = String>, known: &[&str]) -> Vec<String> {
    found
        .filter(|found| !known.iter().any(|start| found.starts_with(start)))
        .collect()
}

/// What the tests ask of the sources, which are read once for all of them.
struct Survey {
    circles: Vec<(String, Circle)>,
    files: Vec<(String, usize)>,
    functions: Vec<(String, usize)>,
    error_texts: Vec<String>,
}

/// Reads every library and program of the workspace.
fn survey() -> &'static Survey {
    static SURVEY: LazyLock<Survey> = LazyLock::new(|| {
        let mut survey = Survey {
            circles: Vec::new(),
            files: Vec::new(),
            functions: Vec::new(),
            error_texts: Vec::new(),
        };
        for package in workspace_packages() {
            let name = text(&package, "name");
            for target in package["targets"].as_array().unwrap() {
                if !matches!(target["kind"][0].as_str(), Some("lib" | "bin")) {
                    continue;
                }
                let tree = Tree::read(Path::new(&text(target, "src_path")));
                let circles = circles::circles(&tree).into_iter();
                survey
                    .circles
                    .extend(circles.map(|circle| (name.clone(), circle)));
                survey.files.extend(sizes::files(&tree));
                survey.functions.extend(sizes::functions(&tree));
                survey.error_texts.extend(error_texts::repeated_causes(&tree));
            }
        }
        survey
    });
    &SURVEY
}

/// A path as it is written in the repository.
fn inside(path: &Path) -> &Path {
    path.strip_prefix(root()).unwrap_or(path)
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
