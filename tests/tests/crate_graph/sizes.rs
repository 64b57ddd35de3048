//! How long files and functions are, without their tests.

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::module_tree::Tree;

/// Every file of a crate with its lines that tests do not own.
pub(crate) fn files(tree: &Tree) -> Vec<(String, usize)> {
    tree.modules
        .iter()
        .filter_map(|module| Some((super::inside(&module.file).display().to_string(), module.lines?)))
        .collect()
}

/// Every function of a crate, as `file:line name`, with its lines from signature to closing brace.
pub(crate) fn functions(tree: &Tree) -> Vec<(String, usize)> {
    tree.modules
        .iter()
        .flat_map(|module| {
            let mut functions = Functions {
                file: super::inside(&module.file).display().to_string(),
                found: Vec::new(),
            };
            for item in &module.items {
                functions.visit_item(item);
            }
            functions.found
        })
        .collect()
}

struct Functions {
    file: String,
    found: Vec<(String, usize)>,
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        let lines = block.span().end().line - first + 1;
        self.found
            .push((format!("{}:{first} {}", self.file, signature.ident), lines));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}
