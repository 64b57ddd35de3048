//! Which error texts repeat their own cause.
//!
//! The printer at each edge writes an error and its causes, joined with ": ". A text that has its cause in it says it twice.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Fields};

use super::module_tree::{Module, Tree};

/// Endings of the names of types that are causes, marked as one or not: unmarked, the chain would lose them.
const CAUSES: &[&str] = &["Error", "Errno", "Failure"];

/// `file:line` of every variant or struct whose text mentions its own source.
pub(crate) fn repeated_causes(tree: &Tree) -> Vec<String> {
    tree.modules.iter().flat_map(in_module).collect()
}

fn in_module(module: &Module) -> Vec<String> {
    let mut texts = Texts { found: Vec::new() };
    for item in &module.items {
        texts.visit_item(item);
    }
    let file = super::inside(&module.file).display().to_string();
    texts
        .found
        .into_iter()
        .map(|(line, text)| format!("{file}:{line}: {text}"))
        .collect()
}

struct Texts {
    found: Vec<(usize, String)>,
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.check(&variant.attrs, &variant.fields);
        visit::visit_variant(self, variant);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.check(&item.attrs, &item.fields);
        visit::visit_item_struct(self, item);
    }
}

impl Texts {
    fn check(&mut self, attributes: &[Attribute], fields: &Fields) {
        let Some(attribute) = attributes
            .iter()
            .find(|attribute| attribute.path().is_ident("error"))
        else {
            return;
        };
        let syn::Meta::List(list) = &attribute.meta else {
            return;
        };
        let mentioned = sources(fields)
            .into_iter()
            .any(|name| mentions(list.tokens.clone(), &name));
        if mentioned {
            self.found
                .push((attribute.span().start().line, list.tokens.to_string()));
        }
    }
}

/// The names of the fields that are causes; of a tuple, their numbers.
fn sources(fields: &Fields) -> Vec<String> {
    fields
        .iter()
        .enumerate()
        .filter(|(_, field)| {
            let marked = field
                .attrs
                .iter()
                .any(|attribute| attribute.path().is_ident("from") || attribute.path().is_ident("source"));
            marked || field.ident.as_ref().is_some_and(|name| name == "source") || is_cause(&field.ty)
        })
        .map(|(number, field)| {
            field
                .ident
                .as_ref()
                .map_or_else(|| number.to_string(), ToString::to_string)
        })
        .collect()
}

fn is_cause(kind: &syn::Type) -> bool {
    let syn::Type::Path(path) = kind else {
        return false;
    };
    path.path.segments.last().is_some_and(|segment| {
        let name = segment.ident.to_string();
        CAUSES.iter().any(|ending| name.ends_with(ending))
    })
}

/// In the text as `{name}` or `{name:?}`, among the arguments as `.name` or `name`.
fn mentions(tokens: TokenStream, name: &str) -> bool {
    let mut tokens = tokens.into_iter();
    let Some(TokenTree::Literal(text)) = tokens.next() else {
        return false;
    };
    let text = text.to_string();
    text.contains(&format!("{{{name}}}"))
        || text.contains(&format!("{{{name}:"))
        || has_word(tokens.collect(), name)
}

fn has_word(tokens: TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => has_word(group.stream(), name),
        TokenTree::Ident(word) => word == name,
        TokenTree::Literal(number) => number.to_string() == name,
        TokenTree::Punct(_) => false,
    })
}
