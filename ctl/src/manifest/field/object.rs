//! A mapping, read entry by entry until nothing is left of it.

use std::collections::BTreeMap;

use super::super::yaml::{Key, Node};
use super::{Field, FieldError, Problem};

/// A mapping being read; [`Object::done`] ends it.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    field: Field<'a>,
    entries: &'a [(Key, Node)],
    taken: Vec<bool>,
}

impl<'a> Object<'a> {
    pub(super) fn new(field: Field<'a>, entries: &'a [(Key, Node)]) -> Object<'a> {
        Object {
            field,
            entries,
            taken: vec![false; entries.len()],
        }
    }

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
