//! Which sibling modules know each other in a circle.
//!
//! A module knows another if it names it, or something in it, in a `use` or in a path. What a parent re-exports counts as
//! the child's that it comes from. At each module, all that is below one of its children counts as that child. A parent
//! and its children may know each other: the folder is one thing, and `mod.rs` is its front.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::module_tree::{Module, Tree, leaves};

/// Sibling modules of which each reaches each other.
pub(crate) struct Circle {
    /// The module whose children they are.
    pub(crate) parent: Vec<String>,
    members: BTreeSet<String>,
    edges: Vec<Edge>,
}

/// One place where a module names a sibling, or something in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    place: String,
    name: String,
}

impl Circle {
    /// No other modules are in it than these.
    pub(crate) fn is_within(&self, modules: &[&str]) -> bool {
        self.members
            .iter()
            .all(|member| modules.contains(&member.as_str()))
    }
}

/// A path in the source of a module.
struct Mention {
    line: usize,
    path: Vec<String>,
}

/// Finds every circle of a crate.
pub(crate) fn circles(tree: &Tree) -> Vec<Circle> {
    let mut found = Vec::new();
    for (parent, edges) in sibling_edges(tree) {
        for members in strongly_connected(&edges) {
            let inside = |edge: &&Edge| members.contains(&edge.from) && members.contains(&edge.to);
            found.push(Circle {
                parent: parent.clone(),
                edges: edges.iter().filter(inside).cloned().collect(),
                members,
            });
        }
    }
    found
}

/// What siblings name of each other, by the module whose children they are.
fn sibling_edges(tree: &Tree) -> BTreeMap<Vec<String>, BTreeSet<Edge>> {
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Edge>> = BTreeMap::new();
    for (index, module) in tree.modules.iter().enumerate() {
        for mention in mentions(tree, index, module) {
            let Some(target) = tree.resolve(index, &mention.path) else {
                continue;
            };
            let other = &tree.modules[target.module].path;
            let common = module
                .path
                .iter()
                .zip(other)
                .take_while(|(left, right)| left == right)
                .count();
            let (Some(from), Some(to)) = (module.path.get(common), other.get(common)) else {
                continue;
            };
            edges
                .entry(module.path[..common].to_vec())
                .or_default()
                .insert(Edge {
                    from: from.clone(),
                    to: to.clone(),
                    place: format!("{}:{}", super::inside(&module.file).display(), mention.line),
                    name: mention.path.join("::"),
                });
        }
    }
    edges
}

/// The groups of more than one module in which each reaches each other.
fn strongly_connected(edges: &BTreeSet<Edge>) -> Vec<BTreeSet<String>> {
    let names: BTreeSet<&str> = edges.iter().map(|edge| edge.from.as_str()).collect();
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        names.iter().map(|name| (*name, reached(edges, name))).collect();
    let mut groups: Vec<BTreeSet<String>> = Vec::new();
    for (name, reached) in &reach {
        let group: BTreeSet<String> = reached
            .iter()
            .filter(|other| reach.get(*other).is_some_and(|back| back.contains(name)))
            .map(|other| (*other).to_owned())
            .collect();
        if group.len() > 1 && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

fn reached<'a>(edges: &'a BTreeSet<Edge>, start: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(name) = open.pop() {
        for edge in edges.iter().filter(|edge| edge.from == name) {
            if reached.insert(edge.to.as_str()) {
                open.push(&edge.to);
            }
        }
    }
    reached
}

/// Every path in a module that may lead to another.
fn mentions(tree: &Tree, index: usize, module: &Module) -> Vec<Mention> {
    let mut collector = Collector { found: Vec::new() };
    for item in &module.items {
        collector.visit_item(item);
    }
    collector
        .found
        .retain(|mention| leads_away(tree, index, &mention.path));
    collector.found
}

/// `Name::new` with an imported `Name` says no more than its `use`; `module::name` may.
fn leads_away(tree: &Tree, index: usize, path: &[String]) -> bool {
    let first = path.first().map_or("", String::as_str);
    matches!(first, "crate" | "self" | "super")
        || (path.len() > 1 && tree.resolve(index, &path[..1]).is_some_and(|target| target.whole))
}

struct Collector {
    found: Vec<Mention>,
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        let line = import.use_token.span.start().line;
        for (path, _) in leaves(&import.tree) {
            self.found.push(Mention { line, path });
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            self.found.push(Mention {
                line: first.ident.span().start().line,
                path: path
                    .segments
                    .iter()
                    .map(|segment| segment.ident.to_string())
                    .collect(),
            });
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

impl Collector {
    /// The paths among the tokens of a macro's arguments, which have no syntax of their own.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Option<Mention> = None;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    let line = word.span().start().line;
                    match &mut path {
                        Some(mention) if colons == 2 => mention.path.push(word.to_string()),
                        _ => {
                            self.found.extend(path.replace(Mention {
                                line,
                                path: vec![word.to_string()],
                            }));
                        }
                    }
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.found.extend(path.take());
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.found.extend(path);
    }
}

impl Display for Circle {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let members: Vec<&str> = self.members.iter().map(String::as_str).collect();
        let parent = if self.parent.is_empty() {
            "the root".to_owned()
        } else {
            self.parent.join("::")
        };
        write!(formatter, "in {parent}: {}", members.join(", "))?;
        for edge in &self.edges {
            write!(
                formatter,
                "\n    {} -> {}  {} -> {}",
                edge.from, edge.to, edge.place, edge.name
            )?;
        }
        Ok(())
    }
}

/// Which circles a library of these files has.
fn circles_of(files: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, source).unwrap();
    }
    circles(&Tree::read(&folder.path().join("lib.rs")))
        .into_iter()
        .map(|circle| (circle.parent.join("::"), circle.members.into_iter().collect()))
        .collect()
}

#[test]
fn siblings_that_import_each_other_are_a_circle() {
    let found = circles_of(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a/mod.rs", "mod inner;"),
        ("a/inner.rs", "use crate::b::{self, Other};"),
        ("b.rs", "fn f() { println!(\"{}\", crate::c::name()); }"),
        ("c.rs", "impl C { fn new() { super::a::new() } }"),
    ]);
    assert_eq!(
        found,
        [(String::new(), ["a", "b", "c"].map(str::to_owned).to_vec())]
    );
}

#[test]
fn what_a_parent_reexports_is_its_childs() {
    let found = circles_of(&[
        ("lib.rs", "mod outer;"),
        (
            "outer/mod.rs",
            "mod a; mod b; pub use a::Name; pub use b::*; struct Own;",
        ),
        ("outer/a.rs", "use super::{Own, Other};"),
        ("outer/b.rs", "pub struct Other; fn f() -> super::Name {}"),
    ]);
    assert_eq!(
        found,
        [("outer".to_owned(), ["a", "b"].map(str::to_owned).to_vec())]
    );
}

#[test]
fn parents_and_tests_make_no_circle() {
    let found = circles_of(&[
        (
            "lib.rs",
            "mod a; mod b; use a::A; use b::B; struct Own; #[cfg(test)] mod tests;",
        ),
        (
            "a.rs",
            "use super::Own; use std::fmt; #[cfg(test)] mod tests { use crate::b::B; }",
        ),
        ("b.rs", "use crate::{Own, a::A}; // super::c"),
    ]);
    assert_eq!(found, []);
}
