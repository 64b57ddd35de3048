//! `env` of a container and the expansion of `$(NAME)`.

use std::collections::BTreeMap;

use super::field::{Field, FieldError, Object, Problem};

/// One environment variable, in the order of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvVar {
    pub(crate) name: String,
    pub(crate) source: EnvSource,
}

/// Where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EnvSource {
    /// Text, in which `$(NAME)` stands for an earlier variable.
    Value(String),
    /// The downward API.
    Field(PodField),
}

/// What `valueFrom.fieldRef.fieldPath` can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodField {
    Name,
    Namespace,
    Uid,
    Label(String),
    Annotation(String),
    NodeName,
    /// Known only once the sandbox runs.
    PodIp,
    /// All of them, joined by commas.
    PodIps,
}

impl EnvVar {
    pub(super) fn read_all(container: &mut Object<'_>) -> Result<Vec<EnvVar>, FieldError> {
        container.items("env")?.iter().map(EnvVar::read).collect()
    }

    fn read(field: &Field<'_>) -> Result<EnvVar, FieldError> {
        let mut object = field.object()?;
        let name_field = object.need("name")?;
        let name = name_field.string()?;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic() && c != '=') {
            return Err(name_field.invalid(&name, "must be printable characters without '='"));
        }
        let value = object.string("value")?;
        let source = match (value, object.take("valueFrom")) {
            (value, None) => EnvSource::Value(value.unwrap_or_default()),
            (None, Some(from)) => read_value_from(&from)?,
            (Some(_), Some(from)) => {
                return Err(from.error(Problem::Rule("cannot be given together with value")));
            }
        };
        object.done()?;
        Ok(EnvVar { name, source })
    }
}

fn read_value_from(field: &Field<'_>) -> Result<EnvSource, FieldError> {
    let mut object = field.object()?;
    const NO_API: &str = "there is no API server to ask";
    object.refuse(&[
        ("configMapKeyRef", NO_API),
        ("secretKeyRef", NO_API),
        ("resourceFieldRef", "only fieldRef is"),
        ("fileKeyRef", "only fieldRef is"),
    ])?;
    let reference = object.need("fieldRef")?;
    object.done()?;
    let mut reference = reference.object()?;
    if let Some(version) = reference.take("apiVersion") {
        version.choice(&[("v1", ())])?;
    }
    let path = reference.need("fieldPath")?;
    reference.done()?;
    Ok(EnvSource::Field(read_field_path(&path)?))
}

fn read_field_path(field: &Field<'_>) -> Result<PodField, FieldError> {
    let path = field.string()?;
    let key_of = |prefix: &str| {
        path.strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix("']"))
            .map(str::to_owned)
    };
    if let Some(key) = key_of("metadata.labels['") {
        return Ok(PodField::Label(key));
    }
    if let Some(key) = key_of("metadata.annotations['") {
        return Ok(PodField::Annotation(key));
    }
    Ok(match path.as_str() {
        "metadata.name" => PodField::Name,
        "metadata.namespace" => PodField::Namespace,
        "metadata.uid" => PodField::Uid,
        "spec.nodeName" => PodField::NodeName,
        "status.podIP" => PodField::PodIp,
        "status.podIPs" => PodField::PodIps,
        _ => {
            return Err(field.invalid(
                &path,
                "is not supported here: metadata.name, .namespace, .uid, .labels['KEY'], .annotations['KEY'], \
                 spec.nodeName, status.podIP and status.podIPs are",
            ));
        }
    })
}

/// `$(NAME)` becomes the variable's value; `$$` one dollar, so that `$$(NAME)` stays as `$(NAME)`; an unknown name stays
/// as it is written (Kubernetes API, Container `command`, `args` and EnvVar `value`).
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        result.push_str(before);
        let after = &from[1..];
        if let Some(tail) = after.strip_prefix('$') {
            result.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = tail;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let variables = BTreeMap::from([
            ("A".to_owned(), "x".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ]);
        let cases = [
            ("$(A)", "x"),
            ("-$(A)-$(A)-", "-x-x-"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x"),
            ("$(C)", "$(C)"),
            ("$(B)", "$(A)"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("$$", "$"),
            ("$()", "$()"),
            ("ä$(A)ö", "äxö"),
        ];
        for (text, wanted) in cases {
            assert_eq!(expand(text, &variables), wanted, "{text}");
        }
    }
}
