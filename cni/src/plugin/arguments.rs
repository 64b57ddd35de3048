//! `CNI_ARGS`: pairs that mean something to some plugins. What a plugin does not use, it does not judge.

/// The arguments, as they are given.
#[derive(Debug, Clone, Default)]
pub struct Arguments(String);

/// The arguments cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentsError {
    /// A part without `=`.
    #[error("CNI_ARGS: invalid pair {0:?}, must be KEY=VALUE")]
    Pair(String),
    /// Keys that the plugin does not know, and `IgnoreUnknown` is not set.
    #[error("CNI_ARGS: unknown args {0:?}")]
    Unknown(Vec<String>),
    /// A value of `IgnoreUnknown` that is neither yes nor no.
    #[error("CNI_ARGS: IgnoreUnknown {0:?} is not true, false, 1 or 0")]
    IgnoreUnknown(String),
}

impl Arguments {
    /// Takes the text of the variable: `KEY=VALUE`, separated by `;`.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The values of these keys, in their order; none or an empty one is none. Other keys are refused unless
    /// `IgnoreUnknown` is set, as upstream's `LoadArgs` does.
    pub fn read<const N: usize>(&self, known: [&str; N]) -> Result<[Option<&str>; N], ArgumentsError> {
        let mut values = [None; N];
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        for pair in self.0.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| ArgumentsError::Pair(pair.to_owned()))?;
            if key == "IgnoreUnknown" {
                ignore_unknown = flag(value)?;
            } else if let Some((_, slot)) = known.iter().zip(&mut values).find(|(name, _)| **name == key) {
                *slot = Some(value).filter(|value| !value.is_empty());
            } else {
                unknown.push(pair.to_owned());
            }
        }
        if unknown.is_empty() || ignore_unknown {
            Ok(values)
        } else {
            Err(ArgumentsError::Unknown(unknown))
        }
    }
}

fn flag(value: &str) -> Result<bool, ArgumentsError> {
    match value.to_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(ArgumentsError::IgnoreUnknown(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_upstream_does() {
        let read = |text: &str| {
            let args = Arguments::new(text);
            args.read(["IP", "MAC"])
                .map(|values| values.map(|value| value.unwrap_or("-").to_owned()).join(" "))
                .map_err(|error| error.to_string())
        };
        let good = [
            ("", "- -"),
            ("IP=10.0.0.1", "10.0.0.1 -"),
            ("MAC=a;IP=b;", "b a"),
            ("IP=;MAC=x=y", "- x=y"),
            ("IgnoreUnknown=1;K8S_POD_NAME=p;IP=b", "b -"),
            ("FOO=1;IgnoreUnknown=TRUE", "- -"),
        ];
        for (text, want) in good {
            assert_eq!(read(text).as_deref(), Ok(want), "{text}");
        }
        for (text, want) in [
            ("none", "invalid pair \"none\""),
            ("FOO=bar", "unknown args [\"FOO=bar\"]"),
            ("FOO=bar;IgnoreUnknown=0", "unknown args"),
            ("IgnoreUnknown=perhaps", "IgnoreUnknown \"perhaps\""),
        ] {
            assert!(read(text).unwrap_err().contains(want), "{text}: {:?}", read(text));
        }
    }
}
