//! Whether the documents name files that there are.

use std::path::{Path, PathBuf};

/// Where one of these begins a word in backquotes, the word is a path of the repository.
const FOLDERS: &[&str] = &[
    ".ci",
    "cni",
    "cni-plugins",
    "cri",
    "ctl",
    "docs",
    "examples",
    "images",
    "integration",
    "linux",
    "overlay",
    "runtime",
    "shim",
    "tests",
];

/// The heading of what is not there yet, up to the next heading.
pub(crate) const TO_COME: &str = "## What will live where";

/// `file:line: path` of every path in the repository's documents that does not exist.
pub(crate) fn missing(root: &Path) -> Vec<String> {
    documents(root)
        .iter()
        .flat_map(|document| {
            let text = std::fs::read_to_string(document).unwrap();
            let name = super::inside(document).display().to_string();
            named(&text)
                .into_iter()
                .filter(|(_, path)| !root.join(path).exists())
                .map(move |(line, path)| format!("{name}:{line}: {path}"))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The pages of decisions that their list does not name.
pub(crate) fn unlisted_decisions(root: &Path) -> Vec<String> {
    let folder = root.join("docs/decisions");
    let list = std::fs::read_to_string(folder.join("README.md")).unwrap();
    files(&folder)
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .filter(|name| name != "README.md" && !list.contains(&format!("({name})")))
        .collect()
}

fn documents(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("docs")];
    found.extend(files(root));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            }
        }
        found.extend(files(&folder));
    }
    found.sort();
    found
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
}

/// The paths in a document with their lines; of one with a placeholder, as `<rpc>.rs`, the folder.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut to_come = false;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            to_come = line == TO_COME;
        }
        if to_come {
            continue;
        }
        let words = line.split('`').skip(1).step_by(2);
        found.extend(words.filter_map(path_of).map(|path| (number + 1, path)));
    }
    found
}

fn path_of(word: &str) -> Option<String> {
    let (first, _) = word.split_once('/')?;
    if !FOLDERS.contains(&first) || word.contains(' ') {
        return None;
    }
    let whole = word.split(['<', '{', '*']).next()?;
    let path = if whole == word {
        word
    } else {
        whole.rsplit_once('/')?.0
    };
    Some(path.trim_end_matches('/').to_owned())
}

#[test]
fn paths_are_found_and_what_is_to_come_is_not_asked_for() {
    let text = format!(
        "`cri/src/x.rs`, `cri/src/<rpc>.rs` and `a/b`\n{TO_COME}\n| `overlay/src/y.rs` |\n## Else\n`linux/`\n"
    );
    assert_eq!(
        named(&text),
        [
            (1, "cri/src/x.rs".to_owned()),
            (1, "cri/src".to_owned()),
            (5, "linux".to_owned())
        ]
    );
}
