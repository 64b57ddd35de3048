//! Names that travel in environment and configuration, and what they may consist of.
//!
//! They become file names, interface names and comments in the kernel, so nothing else is let through.

/// An identifier is not what the specification allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// Nothing at all.
    #[error("missing {0}")]
    Missing(&'static str),
    /// Other characters than letters, digits, `_`, `.` and `-`, or begins with one of the last three.
    #[error("invalid characters in {0}")]
    Characters(&'static str),
    /// Longer than a file name may be.
    #[error("{0} is longer than {1} bytes")]
    TooLong(&'static str, usize),
    /// Not an interface name.
    #[error("interface name {0}")]
    Interface(&'static str),
}

/// A file in the cache has network, container and interface in its name; 255 bytes is the file system's limit.
const LONGEST: usize = 200;
/// `IFNAMSIZ` less the final zero byte.
const LONGEST_INTERFACE: usize = 15;

/// Container ids: letter or digit, then letters, digits, `_`, `.`, `-`.
pub fn check_container_id(id: &str) -> Result<(), IdentifierError> {
    check("container ID", id)
}

/// Network names: as container ids.
pub fn check_network_name(name: &str) -> Result<(), IdentifierError> {
    check("network name", name)
}

/// Interface names as the kernel takes them: 1 to 15 bytes, no `/`, `:`, space, and not `.` or `..`.
pub fn check_interface(name: &str) -> Result<(), IdentifierError> {
    if name.is_empty() {
        return Err(IdentifierError::Interface("is empty"));
    }
    if name.len() > LONGEST_INTERFACE {
        return Err(IdentifierError::Interface(
            "is too long, at most 15 bytes are possible",
        ));
    }
    if name == "." || name == ".." {
        return Err(IdentifierError::Interface("is . or .."));
    }
    if name
        .chars()
        .any(|c| c == '/' || c == ':' || c.is_whitespace() || c == '\0')
    {
        return Err(IdentifierError::Interface(
            "contains / or : or whitespace characters",
        ));
    }
    Ok(())
}

fn check(what: &'static str, text: &str) -> Result<(), IdentifierError> {
    let first = text.chars().next().ok_or(IdentifierError::Missing(what))?;
    if text.len() > LONGEST {
        return Err(IdentifierError::TooLong(what, LONGEST));
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if first.is_ascii_alphanumeric() && text.chars().all(fine) {
        Ok(())
    } else {
        Err(IdentifierError::Characters(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_specification_pass_and_others_do_not() {
        for good in ["a", "0", "net-1.b_c", "A9"] {
            assert_eq!(check_network_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", ".a", "_a", "a/b", "a b", "a\n", "ä", "a\0"] {
            assert!(check_container_id(bad).is_err(), "{bad:?}");
        }
        assert!(check_container_id(&"a".repeat(201)).is_err());
    }

    #[test]
    fn interface_names_are_the_kernels() {
        for good in ["eth0", "a", "123456789012345", "e.1"] {
            assert_eq!(check_interface(good), Ok(()), "{good}");
        }
        for bad in ["", "1234567890123456", ".", "..", "a/b", "a:b", "a b", "a\tb"] {
            assert!(check_interface(bad).is_err(), "{bad:?}");
        }
    }
}
