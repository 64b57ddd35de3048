//! YAML text as a tree that remembers its lines.
//!
//! The parser is `saphyr-parser`: only events, so that the tree can keep the line of every value, refuse a key that
//! is there twice (most loaders let the last one win), and bound what aliases can grow to. Scalars stay text here: whether
//! `8080` is a number or a string is the reader's question ([`super::field`]).

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use thiserror::Error;

/// One value and the line it starts at (from 1).
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `plain`: written without quotes, so that it may also mean a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// In the order of the file.
    Mapping(Vec<(Key, Node)>),
}

/// The key of one entry of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Node {
    /// Whether the value is absent as Kubernetes sees it: nothing, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    fn size(&self) -> usize {
        match &self.value {
            Value::Scalar { .. } => 1,
            Value::Sequence(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            Value::Mapping(entries) => 1 + entries.iter().map(|(_, node)| node.size()).sum::<usize>(),
        }
    }
}

/// Why a text is not read. `line` counts from 1.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum YamlError {
    #[error("line {line}: not YAML: {reason}")]
    Syntax { line: usize, reason: String },
    #[error("line {line}: key {key:?} is already in this mapping, on line {first}")]
    DuplicateKey { line: usize, key: String, first: usize },
    #[error("line {line}: a key must be text, not a list or a mapping")]
    KeyNotText { line: usize },
    #[error("line {line}: tag {tag} is not known")]
    Tag { line: usize, tag: String },
    #[error("line {line}: nested deeper than {MAX_DEPTH} levels")]
    TooDeep { line: usize },
    #[error("line {line}: more than {MAX_NODES} values, aliases counted as often as they are used")]
    TooLarge { line: usize },
    #[error("line {line}: an alias names an anchor that is not complete")]
    Alias { line: usize },
}

/// All documents of `text`; an empty document is a null node.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, YamlError> {
    let mut tree = Tree::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        tree.take(event, span)?;
    }
    Ok(tree.documents)
}

const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 100_000;

/// The documents so far and the collections that are still open, innermost last.
#[derive(Default)]
struct Tree {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

struct Open {
    node: Node,
    anchor: usize,
    /// In a mapping: the key whose value comes next.
    key: Option<Key>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let line = span.start.line();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                // Anchors end with their document (YAML 1.2.2, 9.2).
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = is_plain(style, tag.as_deref(), line)?;
                let node = Node {
                    line,
                    value: Value::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                };
                self.complete(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Value::Sequence(Vec::new()), line, anchor, tag.as_deref())
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(Value::Mapping(Vec::new()), line, anchor, tag.as_deref())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.complete(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let mut node = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or(YamlError::Alias { line })?;
                node.line = line;
                self.nodes += node.size();
                self.complete(node, 0)
            }
        }
    }

    fn begin(
        &mut self,
        value: Value,
        line: usize,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::TooDeep { line });
        }
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "map" | "seq"))
        {
            return Err(YamlError::Tag {
                line,
                tag: tag.to_string(),
            });
        }
        self.open.push(Open {
            node: Node { line, value },
            anchor,
            key: None,
        });
        Ok(())
    }

    /// Puts a finished node where it belongs: the innermost open collection, else a document of its own.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(YamlError::TooLarge { line: node.line });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::Sequence(items) => items.push(node),
            Value::Mapping(entries) => match open.key.take() {
                None => open.key = Some(new_key(entries, node)?),
                Some(key) => entries.push((key, node)),
            },
            Value::Scalar { .. } => {}
        }
        Ok(())
    }
}

fn new_key(entries: &[(Key, Node)], node: Node) -> Result<Key, YamlError> {
    let line = node.line;
    let Value::Scalar { text, .. } = node.value else {
        return Err(YamlError::KeyNotText { line });
    };
    match entries.iter().find(|(key, _)| key.text == text) {
        Some((first, _)) => Err(YamlError::DuplicateKey {
            line,
            key: text,
            first: first.line,
        }),
        None => Ok(Key { line, text }),
    }
}

/// `!!str` makes a plain scalar text, as quotes do; the other core tags leave it as it is written.
fn is_plain(style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<bool, YamlError> {
    let plain = style == ScalarStyle::Plain;
    match tag {
        None => Ok(plain),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
            "str" => Ok(false),
            "int" | "bool" | "null" | "float" => Ok(plain),
            _ => Err(YamlError::Tag {
                line,
                tag: tag.to_string(),
            }),
        },
        Some(tag) => Err(YamlError::Tag {
            line,
            tag: tag.to_string(),
        }),
    }
}

fn syntax(error: &ScanError) -> YamlError {
    YamlError::Syntax {
        line: error.marker().line(),
        reason: error.info().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_of_a_file_is_read_with_its_lines() {
        let documents = documents("a: 1\n---\n# nothing\n---\nb:\n  - x\n  - 'y'\n").unwrap();
        assert_eq!(documents.len(), 3);
        assert!(documents[1].is_null());
        let Value::Mapping(entries) = &documents[2].value else {
            panic!("a mapping")
        };
        assert_eq!((entries[0].0.line, entries[0].0.text.as_str()), (5, "b"));
        let Value::Sequence(items) = &entries[0].1.value else {
            panic!("a sequence")
        };
        assert_eq!(items[1].line, 7);
        assert!(matches!(&items[0].value, Value::Scalar { plain: true, .. }));
        assert!(matches!(&items[1].value, Value::Scalar { plain: false, .. }));
    }

    #[test]
    fn what_is_not_one_clear_tree_is_refused_with_its_line() {
        let cases: &[(&str, &str)] = &[
            (
                "a: 1\nb: 2\na: 3\n",
                "line 3: key \"a\" is already in this mapping, on line 1",
            ),
            ("[a]: 1\n", "line 1: a key must be text, not a list or a mapping"),
            ("a: !secret x\n", "line 1: tag !secret is not known"),
            ("a: [1\n", "line 2: not YAML:"),
            ("a: *b\n", "line 1: not YAML:"),
            ("a: \"1\n", "line 1: not YAML:"),
            ("a: b: c\n", "line 1: not YAML:"),
        ];
        for (text, wanted) in cases {
            let error = documents(text).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn aliases_are_copies_with_a_bound() {
        let documents = documents("a: &x {k: v}\nb: *x\n").unwrap();
        let Value::Mapping(entries) = &documents[0].value else {
            panic!("a mapping")
        };
        assert!(matches!(&entries[1].1.value, Value::Mapping(inner) if inner.len() == 1));

        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..8 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(matches!(super::documents(&bomb), Err(YamlError::TooLarge { .. })));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        documents(&deep).unwrap_err();
        let mut deep = String::new();
        for level in 0..100 {
            deep.push_str(&format!("{}a:\n", " ".repeat(level)));
        }
        assert!(matches!(documents(&deep), Err(YamlError::TooDeep { line: 65 })));
    }
}
