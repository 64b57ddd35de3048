//! Image references, normalised as container runtimes do (docker.io and `library/` are implied, `latest` is the default tag).
//!
//! `[DOMAIN[:PORT]/]PATH[:TAG][@DIGEST]`. The part before the first slash is a domain when it has a dot, a colon or a capital
//! letter, or is `localhost`. A reference with both a tag and a digest means the digest.

use std::fmt;

use crate::digest::{Digest, is_lower_hex};

const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A normalised image reference; `Display` gives its full form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    repository: String,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Tag(String),
    Digest(Digest),
}

/// What is wrong with a reference.
#[derive(Debug, thiserror::Error)]
#[error("image reference {reference:?}")]
pub struct ReferenceError {
    reference: String,
    #[source]
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("it is empty")]
    Empty,
    #[error("the name is longer than {NAME_MAX} characters")]
    TooLong,
    #[error("{0:?} is not a registry host")]
    Domain(String),
    #[error("{0:?} is not a port")]
    Port(String),
    #[error("repository names are lower case, {0:?} is not")]
    UpperCase(String),
    #[error("{0:?} is not a path component (a-z, 0-9, separated by one '.', one or two '_', or '-')")]
    Component(String),
    #[error("{0:?} is not a tag (letters, digits, '_', '.', '-', at most {TAG_MAX})")]
    Tag(String),
    #[error("a reference has no scheme (http://)")]
    Scheme,
    #[error("64 hexadecimal digits are an image id, not a name")]
    Id,
    #[error(transparent)]
    Digest(#[from] crate::digest::DigestError),
}

impl Reference {
    /// Parses and normalises `text`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|problem| ReferenceError {
            reference: text.chars().take(300).collect(),
            problem,
        })
    }

    /// Registry host with its port, for example `docker.io` or `127.0.0.1:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Path within the registry, for example `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, unless the reference has a digest.
    pub fn tag(&self) -> Option<&str> {
        match &self.target {
            Target::Tag(tag) => Some(tag),
            Target::Digest(_) => None,
        }
    }

    /// The digest, if the reference has one.
    pub fn digest(&self) -> Option<&Digest> {
        match &self.target {
            Target::Tag(_) => None,
            Target::Digest(digest) => Some(digest),
        }
    }

    /// Domain and repository without tag or digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.repository)
    }

    /// The same name with another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        Self::parse(&format!("{}:{tag}", self.name()))
    }

    /// What the distribution API wants behind `/manifests/`.
    pub fn target(&self) -> &str {
        match &self.target {
            Target::Tag(tag) => tag,
            Target::Digest(digest) => digest.as_str(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Tag(tag) => write!(f, "{}/{}:{tag}", self.domain, self.repository),
            Target::Digest(digest) => write!(f, "{}/{}@{digest}", self.domain, self.repository),
        }
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

fn parse(text: &str) -> Result<Reference, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.contains("://") {
        return Err(Problem::Scheme);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
        None => (text, None),
    };
    let (domain, rest) = split_domain(rest);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(check_tag(tag)?)),
        None => (rest, None),
    };
    if domain.is_none() && path.len() == 64 && is_lower_hex(path) {
        return Err(Problem::Id);
    }
    let domain = match domain {
        None | Some("index.docker.io") => "docker.io",
        Some(domain) => check_domain(domain)?,
    };
    check_path(path)?;
    let repository = match domain {
        "docker.io" if !path.contains('/') => format!("library/{path}"),
        _ => path.to_owned(),
    };
    if domain.len() + 1 + repository.len() > NAME_MAX {
        return Err(Problem::TooLong);
    }
    let target = match digest {
        Some(digest) => Target::Digest(digest),
        None => Target::Tag(tag.unwrap_or("latest").to_owned()),
    };
    Ok(Reference {
        domain: domain.to_owned(),
        repository,
        target,
    })
}

/// Splits off the domain if the first component is one.
fn split_domain(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

fn check_domain(domain: &str) -> Result<&str, Problem> {
    let bad = || Problem::Domain(domain.to_owned());
    let (host, port) = match domain.strip_prefix('[') {
        Some(v6) => {
            let (address, after) = v6.split_once(']').ok_or_else(bad)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            (
                None,
                after.strip_prefix(':').map_or_else(
                    || after.is_empty().then_some(None).ok_or_else(bad),
                    |p| Ok(Some(p)),
                )?,
            )
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    if let Some(port) = port
        && (!port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().map_or(true, |p| p == 0))
    {
        return Err(Problem::Port(port.to_owned()));
    }
    if let Some(host) = host {
        let label = |l: &str| {
            !l.is_empty()
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !host.split('.').all(label) {
            return Err(bad());
        }
    }
    Ok(domain)
}

fn check_path(path: &str) -> Result<(), Problem> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Problem::UpperCase(path.to_owned()));
    }
    match path.split('/').find(|component| !is_component(component)) {
        Some(component) => Err(Problem::Component(component.to_owned())),
        None => Ok(()),
    }
}

/// Alphanumerics joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    bytes.split(|b| alphanumeric(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn check_tag(tag: &str) -> Result<&str, Problem> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if good {
        Ok(tag)
    } else {
        Err(Problem::Tag(tag.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_normalised() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox:latest",
            ),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            (
                "127.0.0.1:5000/a/b__c--d.e:V_1.x-y",
                "127.0.0.1:5000/a/b__c--d.e:V_1.x-y",
            ),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("HOST/app", "HOST/app:latest"),
        ];
        for (text, full) in cases {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(Reference::parse(full).unwrap(), reference);
        }
        let both = Reference::parse(&format!("busybox:1@sha256:{HEX}")).unwrap();
        assert_eq!(
            both.to_string(),
            format!("docker.io/library/busybox@sha256:{HEX}")
        );
        assert_eq!(
            (both.tag(), both.target()),
            (None, format!("sha256:{HEX}").as_str())
        );
    }

    #[test]
    fn bad_references_name_the_problem() {
        let cases = [
            ("", "empty"),
            ("Busybox", "lower case"),
            ("host.io/Busy", "lower case"),
            ("busybox:", "not a tag"),
            ("busybox:-x", "not a tag"),
            ("a//b", "path component"),
            ("a/../b", "path component"),
            ("host.io/", "path component"),
            ("a___b", "path component"),
            ("-a", "path component"),
            ("host.io:0/a", "port"),
            ("host.io:99999/a", "port"),
            ("host.io:/a", "port"),
            ("ho_st.io/a", "registry host"),
            ("[::1/a", "registry host"),
            ("[::1]x/a", "registry host"),
            ("a@sha256:12", "hexadecimal"),
            ("a@md5:12", "algorithm"),
            (HEX, "image id"),
            ("http://host/a", "scheme"),
            ("a b", "path component"),
        ];
        for (text, want) in cases {
            let error = crate::chain::chain(&Reference::parse(text).unwrap_err());
            assert!(error.contains(want), "{text}: {error}");
        }
        assert!(Reference::parse(&format!("host.io/{}", "a".repeat(300))).is_err());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
    }
}
