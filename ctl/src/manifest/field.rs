//! Reading typed values out of a [`Node`] tree, with the path and the line of each.
//!
//! A mapping is read through an [`Object`]: the reader takes the fields it knows, refuses by name the ones Kubernetes
//! knows and Coracle does not, and `done` refuses whatever is left. So nothing in a manifest can be overlooked silently.

use std::collections::BTreeMap;

use thiserror::Error;

use super::yaml::{Key, Node, Value};

/// What is wrong with a manifest, and where: `line 14: spec.containers[0].livenessProbe: ...`.
#[derive(Debug, Error)]
#[error("line {line}: {path}: {problem}")]
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
    #[error("{value:?} already stands at {first}")]
    Twice { value: String, first: String },
    #[error("{value:?} names no entry of {list}")]
    NoSuch { value: String, list: &'static str },
    #[error("{0}")]
    Rule(&'static str),
}

/// One value that is there (not null), with where it stands.
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
            Value::Mapping(entries) => Ok(Object {
                field: self.clone(),
                entries,
                taken: vec![false; entries.len()],
            }),
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
}

/// A mapping being read; [`Object::done`] ends it.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    field: Field<'a>,
    entries: &'a [(Key, Node)],
    taken: Vec<bool>,
}

impl<'a> Object<'a> {
    /// The field the object itself is.
    pub(crate) fn field(&self) -> &Field<'a> {
        &self.field
    }

    /// The value of `name`; null counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Field<'a>> {
        let index = self.entries.iter().position(|(key, _)| key.text == name)?;
        if let Some(taken) = self.taken.get_mut(index) {
            *taken = true;
        }
        let (_, node) = self.entries.get(index)?;
        (!node.is_null()).then(|| Field {
            path: self.path_of(name),
            node,
        })
    }

    /// The value of `name`, which must be there.
    pub(crate) fn need(&mut self, name: &str) -> Result<Field<'a>, FieldError> {
        self.take(name).ok_or_else(|| self.missing(name))
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, FieldError> {
        self.take(name).map(|field| field.string()).transpose()
    }

    /// The value of `name`; false when absent.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<bool, FieldError> {
        self.take(name).map_or(Ok(false), |field| field.boolean())
    }

    pub(crate) fn integer(&mut self, name: &str, low: i64, high: i64) -> Result<Option<i64>, FieldError> {
        self.take(name).map(|field| field.integer(low, high)).transpose()
    }

    pub(crate) fn strings(&mut self, name: &str) -> Result<Vec<String>, FieldError> {
        self.take(name).map_or(Ok(Vec::new()), |field| field.strings())
    }

    pub(crate) fn string_map(&mut self, name: &str) -> Result<BTreeMap<String, String>, FieldError> {
        self.take(name)
            .map_or(Ok(BTreeMap::new()), |field| field.string_map())
    }

    /// The items of the list `name`; none when absent.
    pub(crate) fn items(&mut self, name: &str) -> Result<Vec<Field<'a>>, FieldError> {
        self.take(name).map_or(Ok(Vec::new()), |field| field.items())
    }

    /// The error that `name` is not there.
    pub(crate) fn missing(&self, name: &str) -> FieldError {
        FieldError {
            line: self.field.node.line,
            path: self.path_of(name),
            problem: Problem::Missing,
        }
    }

    /// Fields that Kubernetes knows and Coracle does not, each with the reason. An empty list or mapping asks for
    /// nothing and is let through (kubectl writes such).
    pub(crate) fn refuse(&mut self, fields: &[(&str, &'static str)]) -> Result<(), FieldError> {
        for (name, reason) in fields {
            if let Some(field) = self.take(name)
                && !field.is_empty()
            {
                let line = self.line_of(name);
                let path = self.path_of(name);
                return Err(FieldError {
                    line,
                    path,
                    problem: Problem::Unsupported(reason),
                });
            }
        }
        Ok(())
    }

    /// Everything has been taken; anything left is a field that does not exist.
    pub(crate) fn done(self) -> Result<(), FieldError> {
        match self.entries.iter().zip(&self.taken).find(|(_, taken)| !**taken) {
            None => Ok(()),
            Some(((key, _), _)) => Err(FieldError {
                line: key.line,
                path: self.path_of(&key.text),
                problem: Problem::Unknown,
            }),
        }
    }

    /// All entries, whatever their key.
    pub(crate) fn all(&self) -> Vec<(String, Field<'a>)> {
        let one = |(key, node): &'a (Key, Node)| {
            (
                key.text.clone(),
                Field {
                    path: self.path_of(&key.text),
                    node,
                },
            )
        };
        self.entries.iter().map(one).collect()
    }

    fn line_of(&self, name: &str) -> usize {
        let key = self.entries.iter().find(|(key, _)| key.text == name);
        key.map_or(self.field.node.line, |(key, _)| key.line)
    }

    fn path_of(&self, name: &str) -> String {
        if self.field.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.field.path)
        }
    }
}

impl Field<'_> {
    fn is_empty(&self) -> bool {
        match &self.node.value {
            Value::Scalar { .. } => false,
            Value::Sequence(items) => items.is_empty(),
            Value::Mapping(entries) => entries.is_empty(),
        }
    }
}

/// What a YAML 1.1 or 1.2 reader takes for null, a boolean or a number. Kubernetes reads 1.1, where `yes` is true.
fn reads_as_other_than_text(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    matches!(
        lower.as_str(),
        "" | "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | ".nan"
    ) || is_number(lower.strip_prefix(['+', '-']).unwrap_or(&lower))
}

/// A number without its sign, in lower case: decimal, float, `0x`, `0o`, `0b`, infinity.
fn is_number(text: &str) -> bool {
    let digits = |text: &str, radix: u32| {
        !text.is_empty() && text.chars().all(|c| c.is_digit(radix) || c == '_') && text != "_"
    };
    match text.get(..2) {
        Some("0x") => digits(&text[2..], 16),
        Some("0o") => digits(&text[2..], 8),
        Some("0b") => digits(&text[2..], 2),
        _ if text == ".inf" => true,
        // Rust also reads "inf", "nan" and "infinity" as floats; YAML does not.
        _ => text.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::documents;
    use super::*;

    fn with<T>(text: &str, read: impl FnOnce(Object<'_>) -> Result<T, FieldError>) -> Result<T, String> {
        let documents = documents(text).unwrap();
        Field::document(&documents[0])
            .object()
            .and_then(read)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_plain_scalar_that_is_not_text_is_no_string() {
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
