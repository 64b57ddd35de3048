//! Reading typed values out of a [`Node`] tree, with the path and the line of each.
//!
//! A mapping is read through an [`Object`]: the reader takes the fields it knows, refuses by name the ones Kubernetes
//! knows and Coracle does not, and `done` refuses whatever is left. So nothing in a manifest can be overlooked silently.

use std::collections::BTreeMap;

use thiserror::Error;

use super::yaml::{Node, Value};

mod object;
mod plain;

pub(crate) use object::Object;

use plain::reads_as_other_than_text;

/// What is wrong with a manifest, and where: `line 14: spec.containers[0].livenessProbe: ...`.
#[derive(Debug, Error)]
#[error("line {line}: {path}")]
pub(crate) struct FieldError {
    line: usize,
    path: String,
    #[source]
    problem: Problem,
}

/// What is wrong with one field.
#[derive(Debug, Error)]
pub(crate) enum Problem {
    #[error("this field is required")]
    Missing,
    #[error("Kubernetes has no such field here")]
    Unknown,
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    #[error("must be {wanted}, is {found}")]
    Kind {
        wanted: &'static str,
        found: &'static str,
    },
    #[error("must be a string, and {0} is not one in YAML: write it in quotes")]
    NeedsQuotes(String),
    #[error("{value:?} {rule}")]
    Invalid { value: String, rule: &'static str },
    #[error("{value} is not between {low} and {high}")]
    OutOfRange { value: String, low: i64, high: i64 },
    #[error("{value:?} is not one of {}", wanted.join(", "))]
    NotOneOf {
        value: String,
        wanted: Vec<&'static str>,
    },
    #[error("{value:?} is already used at {first}")]
    Twice { value: String, first: String },
    #[error("{value:?} is not an entry of {list}")]
    NoSuch { value: String, list: &'static str },
    #[error("{0}")]
    Rule(&'static str),
}

/// One value that is there (not null), with its place in the document.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    path: String,
    node: &'a Node,
}

impl<'a> Field<'a> {
    /// The root of a document.
    pub(crate) fn document(node: &'a Node) -> Field<'a> {
        Field {
            path: String::new(),
            node,
        }
    }

    /// As in `spec.containers[0].name`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The error `problem` about this field.
    pub(crate) fn error(&self, problem: Problem) -> FieldError {
        let path = if self.path.is_empty() {
            "the document".to_owned()
        } else {
            self.path.clone()
        };
        FieldError {
            line: self.node.line,
            path,
            problem,
        }
    }

    /// The error that this field's `value` breaks `rule` ("must ...").
    pub(crate) fn invalid(&self, value: &str, rule: &'static str) -> FieldError {
        self.error(Problem::Invalid {
            value: value.to_owned(),
            rule,
        })
    }

    pub(crate) fn object(&self) -> Result<Object<'a>, FieldError> {
        match &self.node.value {
            Value::Mapping(entries) => Ok(Object::new(self.clone(), entries)),
            _ => Err(self.kind("a mapping")),
        }
    }

    pub(crate) fn items(&self) -> Result<Vec<Field<'a>>, FieldError> {
        let Value::Sequence(items) = &self.node.value else {
            return Err(self.kind("a list"));
        };
        let item = |(index, node)| Field {
            path: format!("{}[{index}]", self.path),
            node,
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// Text. What YAML reads as a number, boolean or null needs quotes, as with kubectl.
    pub(crate) fn string(&self) -> Result<String, FieldError> {
        match &self.node.value {
            Value::Scalar { text, plain } if *plain && reads_as_other_than_text(text) => {
                Err(self.error(Problem::NeedsQuotes(text.clone())))
            }
            Value::Scalar { text, .. } if text.contains('\0') => {
                Err(self.error(Problem::Rule("must not contain a NUL byte")))
            }
            Value::Scalar { text, .. } => Ok(text.clone()),
            _ => Err(self.kind("a string")),
        }
    }

    pub(crate) fn boolean(&self) -> Result<bool, FieldError> {
        match &self.node.value {
            Value::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "True" | "TRUE") => {
                Ok(true)
            }
            Value::Scalar { text, plain: true } if matches!(text.as_str(), "false" | "False" | "FALSE") => {
                Ok(false)
            }
            _ => Err(self.kind("true or false")),
        }
    }

    /// A whole number within `low..=high`.
    pub(crate) fn integer(&self, low: i64, high: i64) -> Result<i64, FieldError> {
        let Value::Scalar { text, plain: true } = &self.node.value else {
            return Err(self.kind("a whole number"));
        };
        let value: i64 = text.parse().map_err(|_| self.kind("a whole number"))?;
        if value < low || value > high {
            return Err(self.error(Problem::OutOfRange {
                value: text.clone(),
                low,
                high,
            }));
        }
        Ok(value)
    }

    /// Text or number as written: for quantities, which may be either.
    pub(crate) fn scalar(&self) -> Result<String, FieldError> {
        match &self.node.value {
            Value::Scalar { text, .. } => Ok(text.clone()),
            _ => Err(self.kind("a number or a string")),
        }
    }

    /// One of the words in `choices`, as the value beside it.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Result<T, FieldError> {
        let text = self.string()?;
        choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let wanted = choices.iter().map(|(word, _)| *word).collect();
                self.error(Problem::NotOneOf { value: text, wanted })
            })
    }

    pub(crate) fn strings(&self) -> Result<Vec<String>, FieldError> {
        self.items()?.iter().map(Field::string).collect()
    }

    pub(crate) fn string_map(&self) -> Result<BTreeMap<String, String>, FieldError> {
        let mut map = BTreeMap::new();
        for (key, field) in self.object()?.all() {
            map.insert(key, field.string()?);
        }
        Ok(map)
    }

    fn kind(&self, wanted: &'static str) -> FieldError {
        let found = match &self.node.value {
            Value::Scalar { .. } if self.node.is_null() => "empty",
            Value::Scalar { plain: false, .. } => "a string",
            Value::Scalar { text, .. } if reads_as_other_than_text(text) => "a number or boolean",
            Value::Scalar { .. } => "a string",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        };
        self.error(Problem::Kind { wanted, found })
    }

    /// An empty list or mapping.
    fn is_empty(&self) -> bool {
        match &self.node.value {
            Value::Scalar { .. } => false,
            Value::Sequence(items) => items.is_empty(),
            Value::Mapping(entries) => entries.is_empty(),
        }
    }

    /// Notes `name`, which must not have been seen in this field's list.
    pub(crate) fn note_unique(
        &self,
        seen: &mut BTreeMap<String, String>,
        name: &str,
    ) -> Result<(), FieldError> {
        match seen.insert(name.to_owned(), self.path.clone()) {
            None => Ok(()),
            Some(first) => Err(self.error(Problem::Twice {
                value: name.to_owned(),
                first,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::documents;
    use super::*;
    use crate::error::chain;

    fn with<T>(text: &str, read: impl FnOnce(Object<'_>) -> Result<T, FieldError>) -> Result<T, String> {
        let documents = documents(text).unwrap();
        Field::document(&documents[0])
            .object()
            .and_then(read)
            .map_err(|error| chain(&error))
    }

    #[test]
    fn a_plain_scalar_that_is_not_text_is_not_a_string() {
        for value in [
            "8080", "true", "yes", "No", "1.5", "-3", "0x1f", "1e3", ".inf", ".5",
        ] {
            let error = with(&format!("a: {value}\n"), |mut object| object.string("a")).unwrap_err();
            assert!(error.ends_with("write it in quotes"), "{value}: {error}");
        }
        for value in [
            "'8080'", "\"true\"", "!!str 7", "1.2.3", "8080/tcp", "inf", "nan", "100m", "y",
        ] {
            with(&format!("a: {value}\n"), |mut object| object.string("a")).unwrap();
        }
    }

    #[test]
    fn a_field_that_was_not_taken_is_refused_by_path_and_line() {
        let error = with("a:\n  b: 1\n  c: 2\n", |mut object| {
            let mut inner = object.need("a")?.object()?;
            inner.integer("b", 0, 9)?;
            inner.done()
        });
        assert_eq!(
            error.unwrap_err(),
            "line 3: a.c: Kubernetes has no such field here"
        );
    }

    #[test]
    fn null_is_absent_and_empty_asks_for_nothing() {
        with("a: null\nb: {}\nc: []\nd:\n", |mut object| {
            assert!(object.take("a").is_none());
            object.refuse(&[("b", "x"), ("c", "x"), ("d", "x")])?;
            object.done()
        })
        .unwrap();
    }
}
