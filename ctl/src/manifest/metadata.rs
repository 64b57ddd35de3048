//! `metadata`: what the pod is called.

use std::collections::BTreeMap;

use super::field::{Field, FieldError};

/// The pod's name, namespace, labels and annotations.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    /// `default` unless the manifest says otherwise.
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Metadata {
    pub(super) fn read(field: &Field<'_>) -> Result<Metadata, FieldError> {
        let mut object = field.object()?;
        object.refuse(&[
            (
                "generateName",
                "there is no API server that would make up a name; give metadata.name",
            ),
            ("ownerReferences", "there is no API server that knows an owner"),
            ("finalizers", "there is no API server that would wait for them"),
            ("uid", "coraclectl makes a new one each time"),
            ("resourceVersion", "there is no API server"),
            ("generation", "there is no API server"),
            ("creationTimestamp", "there is no API server"),
            ("deletionTimestamp", "there is no API server"),
            ("managedFields", "there is no API server"),
        ])?;
        let name_field = object.need("name")?;
        let metadata = Metadata {
            name: subdomain(&name_field)?,
            namespace: object
                .take("namespace")
                .map_or_else(|| Ok("default".to_owned()), |field| label(&field))?,
            labels: labels(object.take("labels"))?,
            annotations: object.string_map("annotations")?,
        };
        object.done()?;
        Ok(metadata)
    }
}

/// A DNS label (RFC 1123): at most 63 of a-z, 0-9 and `-`, a letter or digit at both ends.
pub(super) fn label(field: &Field<'_>) -> Result<String, FieldError> {
    let text = field.string()?;
    if is_label(&text) {
        return Ok(text);
    }
    Err(field.invalid(
        &text,
        "is not a name of at most 63 characters a-z, 0-9 and '-' that begins and ends with a letter or digit",
    ))
}

/// A DNS subdomain (RFC 1123): labels joined by dots, at most 253 characters.
pub(super) fn subdomain(field: &Field<'_>) -> Result<String, FieldError> {
    let text = field.string()?;
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text);
    }
    Err(field.invalid(
        &text,
        "is not a name of characters a-z, 0-9, '-' and '.' that begins and ends with a letter or digit",
    ))
}

fn is_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn labels(field: Option<Field<'_>>) -> Result<BTreeMap<String, String>, FieldError> {
    let mut labels = BTreeMap::new();
    let Some(field) = field else { return Ok(labels) };
    for (key, value) in field.object()?.all() {
        let text = value.string()?;
        let name = key.rsplit('/').next().unwrap_or(&key);
        if name.is_empty() || !is_label_text(name) {
            return Err(value.invalid(
                &key,
                "is not a label key (63 characters A-Z, a-z, 0-9, '-', '_', '.', with an optional prefix/)",
            ));
        }
        if !is_label_text(&text) {
            return Err(value.invalid(&text, "is not a label value (63 characters A-Z, a-z, 0-9, '-', '_', '.', a letter or digit at both ends)"));
        }
        labels.insert(key, text);
    }
    Ok(labels)
}

fn is_label_text(text: &str) -> bool {
    let end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && end(text.chars().next())
        && end(text.chars().next_back())
}
