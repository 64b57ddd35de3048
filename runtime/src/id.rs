//! The name of a container.

use std::fmt;
use std::str::FromStr;

/// A container's name: letters, digits and `_ + . -`, neither `.` nor `..`; it becomes a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// A name that no container may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid container id {0:?}: it may hold letters, digits and _+.- and is 1 to 1024 bytes long")]
pub struct IdError(String);

impl ContainerId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = IdError;

    fn from_str(name: &str) -> Result<Self, IdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
        let good = matches!(name.len(), 1..=1024) && name.bytes().all(allowed) && name != "." && name != "..";
        if good {
            Ok(Self(name.to_owned()))
        } else {
            Err(IdError(name.to_owned()))
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<std::path::Path> for ContainerId {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_state_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "../x", "a\0b", "ä", "a b"] {
            assert!(ContainerId::from_str(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "A_b+c.d-e", "0123456789abcdef", "..."] {
            assert!(ContainerId::from_str(good).is_ok(), "{good:?}");
        }
    }
}
