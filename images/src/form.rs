//! Reads JSON documents as the field's programs do: a key in any case of its letters, null as missing, a number where a word is
//! wanted and the other way round. What has another form still is dropped, with a warning that names it: what a document says
//! wrongly beside what is needed is no reason to refuse an image.

use serde_json::{Map, Value};

/// A document's object, with its name for warnings.
#[derive(Clone, Copy)]
pub(crate) struct Form<'a> {
    what: &'static str,
    object: &'a Map<String, Value>,
}

impl<'a> Form<'a> {
    /// `None` when `value` is no object.
    pub(crate) fn of(what: &'static str, value: &'a Value) -> Option<Self> {
        value.as_object().map(|object| Self { what, object })
    }

    /// What is under `key`, if anything but null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        let exact = self.object.get(key);
        let any_case = || {
            let found = self
                .object
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(key));
            found.map(|(_, value)| value)
        };
        exact.or_else(any_case).filter(|value| !value.is_null())
    }

    /// The object under `key`.
    pub(crate) fn inner(&self, key: &str, what: &'static str) -> Option<Form<'a>> {
        let value = self.get(key)?;
        let form = Form::of(what, value);
        if form.is_none() {
            self.dropped(key, value);
        }
        form
    }

    /// A word; a number or truth value counts as the word it is written as.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        let text = word(value);
        if text.is_none() {
            self.dropped(key, value);
        }
        text
    }

    /// A number that is not negative, also one written as a word.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        let value = self.get(key)?;
        let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
        if number.is_none() {
            self.dropped(key, value);
        }
        number
    }

    /// A list; something else than a list counts as a list of that one.
    pub(crate) fn list(&self, key: &str) -> Option<&'a [Value]> {
        self.get(key).map(|value| match value {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        })
    }

    /// A list of words.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let item = |value: &Value| {
            let text = word(value);
            if text.is_none() {
                self.dropped(key, value);
            }
            text
        };
        self.list(key).map(|list| list.iter().filter_map(item).collect())
    }

    /// The keys of an object, or the words of a list.
    pub(crate) fn keys(&self, key: &str) -> Option<Vec<String>> {
        match self.get(key)? {
            Value::Object(object) => Some(object.keys().cloned().collect()),
            _ => self.texts(key),
        }
    }

    /// An object of words.
    pub(crate) fn pairs(&self, key: &str) -> Option<Vec<(String, String)>> {
        let object = self.get(key)?.as_object();
        if object.is_none() {
            self.dropped(key, self.get(key)?);
        }
        let pair = |(name, value): (&String, &Value)| match value {
            Value::Null => Some((name.clone(), String::new())),
            other => {
                let text = word(other);
                if text.is_none() {
                    self.dropped(name, other);
                }
                text.map(|text| (name.clone(), text))
            }
        };
        object.map(|object| object.iter().filter_map(pair).collect())
    }

    fn dropped(&self, key: &str, value: &Value) {
        let value: String = value.to_string().chars().take(100).collect();
        tracing::warn!(
            document = self.what,
            key,
            value,
            "of another form than is known, not read"
        );
    }
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
