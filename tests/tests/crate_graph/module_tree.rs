//! The modules of a crate as its files spell them, without what only tests compile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::TokenTree;
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Item, UseTree};

/// How many re-exports a name is followed through, so that two globs of each other end.
const MOST_REEXPORTS: usize = 16;

/// One library or program with all its modules; the first is its root.
pub(crate) struct Tree {
    pub(crate) modules: Vec<Module>,
}

/// One module, in a file of its own or inline.
pub(crate) struct Module {
    /// Its path from the root of the crate, which itself has none.
    pub(crate) path: Vec<String>,
    /// The file it stands in.
    pub(crate) file: PathBuf,
    /// The lines of that file that tests do not own; nothing for an inline module.
    pub(crate) lines: Option<usize>,
    /// What it defines, without its child modules and what only tests compile.
    pub(crate) items: Vec<Item>,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    names: BTreeSet<String>,
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
}

/// The module that a path leads to.
pub(crate) struct Target {
    pub(crate) module: usize,
    /// The path names the module itself, not something in it.
    pub(crate) whole: bool,
}

impl Tree {
    /// Reads the modules below a `lib.rs` or `main.rs`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut tree = Self { modules: Vec::new() };
        let folder = root.parent().unwrap();
        tree.read_file(root, folder, None, Vec::new());
        tree
    }

    /// Which module of this crate a path, as written in the module `from`, leads to; nothing for a path into another crate.
    pub(crate) fn resolve(&self, from: usize, path: &[String]) -> Option<Target> {
        self.follow(from, path, 0)
    }

    fn follow(&self, from: usize, path: &[String], depth: usize) -> Option<Target> {
        let first = path.first()?;
        let module = &self.modules[from];
        let (at, rest) = match first.as_str() {
            "crate" => (0, &path[1..]),
            "self" => (from, &path[1..]),
            "super" => (module.parent?, &path[1..]),
            name if module.children.contains_key(name) || module.imports.contains_key(name) => (from, path),
            _ => return None,
        };
        self.descend(at, rest, depth)
    }

    /// Follows the rest of a path from a module: through children first, then through what the module re-exports.
    fn descend(&self, mut at: usize, path: &[String], depth: usize) -> Option<Target> {
        for (position, name) in path.iter().enumerate() {
            let module = &self.modules[at];
            if name == "self" {
                continue;
            }
            if name == "super" {
                at = module.parent?;
                continue;
            }
            if let Some(child) = module.children.get(name) {
                at = *child;
                continue;
            }
            let rest = &path[position + 1..];
            let here = Target {
                module: at,
                whole: false,
            };
            return Some(self.reexported(at, name, rest, depth).unwrap_or(here));
        }
        Some(Target {
            module: at,
            whole: true,
        })
    }

    /// Where a name comes from that a module does not define but imports, by name or by `*`.
    fn reexported(&self, at: usize, name: &str, rest: &[String], depth: usize) -> Option<Target> {
        if depth >= MOST_REEXPORTS {
            return None;
        }
        let module = &self.modules[at];
        if let Some(import) = module.imports.get(name) {
            // `use name;` of another crate would lead back to itself.
            if import.len() == 1 && import[0] == name {
                return None;
            }
            let path: Vec<String> = import.iter().chain(rest).cloned().collect();
            return self.follow(at, &path, depth + 1);
        }
        if module.names.contains(name) {
            return None;
        }
        module.globs.iter().find_map(|glob| {
            let target = self
                .follow(at, glob, depth + 1)
                .filter(|target| target.whole && target.module != at)?;
            let source = &self.modules[target.module];
            let offered = source.names.contains(name)
                || source.imports.contains_key(name)
                || source.children.contains_key(name);
            let path: Vec<String> = std::iter::once(name.to_owned())
                .chain(rest.iter().cloned())
                .collect();
            offered.then(|| self.descend(target.module, &path, depth + 1))?
        })
    }

    /// Reads one file and all modules below it; the files of its children are in `folder`.
    fn read_file(&mut self, file: &Path, folder: &Path, parent: Option<usize>, path: Vec<String>) -> usize {
        let source =
            std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut parsed =
            syn::parse_file(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut tests = TestCode::default();
        tests.visit_file_mut(&mut parsed);
        let lines = source.lines().count() - tests.lines;
        let module = self.add(file, folder, parent, path, parsed.items);
        self.modules[module].lines = Some(lines);
        module
    }

    fn add(
        &mut self,
        file: &Path,
        folder: &Path,
        parent: Option<usize>,
        path: Vec<String>,
        items: Vec<Item>,
    ) -> usize {
        let index = self.modules.len();
        self.modules.push(Module {
            path: path.clone(),
            file: file.to_owned(),
            lines: None,
            items: Vec::new(),
            parent,
            children: BTreeMap::new(),
            names: BTreeSet::new(),
            imports: BTreeMap::new(),
            globs: Vec::new(),
        });
        for item in items {
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let mut path = path.clone();
                    path.push(name.clone());
                    let child = match child.content {
                        Some((_, items)) => self.add(file, &folder.join(&name), Some(index), path, items),
                        None => {
                            let (file, folder) = file_of(folder, &name);
                            self.read_file(&file, &folder, Some(index), path)
                        }
                    };
                    self.modules[index].children.insert(name, child);
                }
                item => self.modules[index].define(item),
            }
        }
        index
    }
}

impl Module {
    fn define(&mut self, item: Item) {
        match &item {
            Item::Use(import) => {
                for (path, name) in leaves(&import.tree) {
                    match name {
                        Some(name) => _ = self.imports.insert(name, path),
                        None => self.globs.push(path),
                    }
                }
            }
            Item::Const(item) => _ = self.names.insert(item.ident.to_string()),
            Item::Enum(item) => _ = self.names.insert(item.ident.to_string()),
            Item::Fn(item) => _ = self.names.insert(item.sig.ident.to_string()),
            Item::Static(item) => _ = self.names.insert(item.ident.to_string()),
            Item::Struct(item) => _ = self.names.insert(item.ident.to_string()),
            Item::Trait(item) => _ = self.names.insert(item.ident.to_string()),
            Item::Type(item) => _ = self.names.insert(item.ident.to_string()),
            Item::Union(item) => _ = self.names.insert(item.ident.to_string()),
            _ => {}
        }
        self.items.push(item);
    }
}

/// Every path that a `use` names with the name it gets, which `*` has none of.
pub(crate) fn leaves(tree: &UseTree) -> Vec<(Vec<String>, Option<String>)> {
    match tree {
        UseTree::Path(path) => leaves(&path.tree)
            .into_iter()
            .map(|(mut rest, name)| {
                rest.insert(0, path.ident.to_string());
                // `use a::b::{self}` brings `b`.
                let name = if name.as_deref() == Some("self") {
                    Some(path.ident.to_string())
                } else {
                    name
                };
                (rest, name)
            })
            .collect(),
        UseTree::Name(name) => vec![(vec![name.ident.to_string()], Some(name.ident.to_string()))],
        UseTree::Rename(name) => vec![(vec![name.ident.to_string()], Some(name.rename.to_string()))],
        UseTree::Glob(_) => vec![(Vec::new(), None)],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

/// The file of a module and the folder of its children.
fn file_of(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let inside = folder.join(name);
    let flat = folder.join(format!("{name}.rs"));
    let file = if flat.exists() {
        flat
    } else {
        inside.join("mod.rs")
    };
    (file, inside)
}

/// Takes out what only tests compile and counts its lines.
#[derive(Default)]
struct TestCode {
    lines: usize,
}

impl TestCode {
    fn is(&mut self, attributes: &[Attribute], whole: proc_macro2::Span) -> bool {
        let test = attributes.iter().any(only_for_tests);
        if test {
            self.lines += whole.end().line - whole.start().line + 1;
        }
        test
    }
}

impl VisitMut for TestCode {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| !self.is(attributes(item), item.span()));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| !self.is(attributes(item), item.span()));
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut syn::ItemImpl) {
        block.items.retain(|item| match item {
            syn::ImplItem::Fn(function) => !self.is(&function.attrs, function.span()),
            _ => true,
        });
        visit_mut::visit_item_impl_mut(self, block);
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        block.stmts.retain(|statement| match statement {
            syn::Stmt::Item(item) => !self.is(attributes(item), item.span()),
            syn::Stmt::Local(local) => !self.is(&local.attrs, local.span()),
            _ => true,
        });
        visit_mut::visit_block_mut(self, block);
    }
}

/// `#[test]` or a `#[cfg]` that asks for `test`.
fn only_for_tests(attribute: &Attribute) -> bool {
    let path = attribute.path();
    if path
        .segments
        .last()
        .is_some_and(|segment| segment.ident == "test")
    {
        return true;
    }
    let syn::Meta::List(list) = &attribute.meta else {
        return false;
    };
    path.is_ident("cfg") && asks_for_test(list.tokens.clone())
}

fn asks_for_test(tokens: proc_macro2::TokenStream) -> bool {
    let mut negated = false;
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => {
            negated = word == "not";
            word == "test"
        }
        TokenTree::Group(group) => !std::mem::take(&mut negated) && asks_for_test(group.stream()),
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
