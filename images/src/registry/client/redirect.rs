//! Where a redirect leads, if it may be followed (RFC 9110, 10.2.2; RFC 3986, 5.2).

use hyper::Uri;
use hyper::header::{HeaderMap, LOCATION};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use crate::registry::RegistryError;
use crate::registry::body::shown;

/// What servers forget to escape: all that no URL may hold as it is.
const UNESCAPED: AsciiSet = CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The address that an answer from `from` redirects to. From https to plain HTTP only when `plain` allows it.
pub(super) fn redirected(from: &Uri, headers: &HeaderMap, plain: bool) -> Result<Uri, RegistryError> {
    let location = headers.get(LOCATION).map_or(&b""[..], |value| value.as_bytes());
    let location = percent_encode(location.trim_ascii(), &UNESCAPED).to_string();
    let location = location.split('#').next().unwrap_or_default();
    let bad = || RegistryError::BadRedirect {
        url: shown(from),
        location: location.chars().take(200).collect(),
    };
    if location.is_empty() {
        return Err(bad());
    }
    let to: Uri = absolute(from, location).parse().map_err(|_| bad())?;
    let downgrade = from.scheme_str() == Some("https") && to.scheme_str() != Some("https");
    let known = matches!(to.scheme_str(), Some("http" | "https"));
    if (downgrade && !plain) || !known || to.host().is_none_or(str::is_empty) {
        return Err(bad());
    }
    Ok(to)
}

fn absolute(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or_default();
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let before_query = location.split(['?', '/']).next().unwrap_or_default();
    if before_query.contains(':') {
        return location.to_owned();
    }
    if location.starts_with("//") {
        return format!("{scheme}:{location}");
    }
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}");
    }
    if location.starts_with('?') {
        return format!("{scheme}://{authority}{}{location}", from.path());
    }
    let (path, query) = match location.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (location, String::new()),
    };
    let mut segments: Vec<&str> = from.path().split('/').skip(1).collect();
    segments.pop();
    for segment in path.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("{scheme}://{authority}/{}{query}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(from: &str, location: &[u8], plain: bool) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.try_into().unwrap());
        let to = redirected(&from.parse().unwrap(), &headers, plain).ok()?;
        Some(to.to_string())
    }

    #[test]
    fn every_form_of_location_is_resolved() {
        let from = "https://reg.io:5000/v2/app/blobs/x?ns=a";
        let cases: [(&[u8], &str); 11] = [
            (b"https://s.io/a?b=c", "https://s.io/a?b=c"),
            (b"//s.io/a", "https://s.io/a"),
            (b"/a/b", "https://reg.io:5000/a/b"),
            (b"y", "https://reg.io:5000/v2/app/blobs/y"),
            (b"./y?z=1", "https://reg.io:5000/v2/app/blobs/y?z=1"),
            (b"../../y", "https://reg.io:5000/v2/y"),
            (b"?sig=1", "https://reg.io:5000/v2/app/blobs/x?sig=1"),
            (b"https://s.io/a b|c{d}", "https://s.io/a%20b%7Cc%7Bd%7D"),
            ("https://s.io/\u{e4}".as_bytes(), "https://s.io/%C3%A4"),
            (b"https://s.io/a%20b#part", "https://s.io/a%20b"),
            (b"/a?u=http://b:1/", "https://reg.io:5000/a?u=http://b:1/"),
        ];
        for (location, want) in cases {
            assert_eq!(to(from, location, true).as_deref(), Some(want), "{location:?}");
        }
        for bad in [
            &b""[..],
            b"file:///etc/passwd",
            b"ftp://s.io/a",
            b"mailto:a",
            b"https://",
        ] {
            assert_eq!(to(from, bad, true), None, "{bad:?}");
        }
    }

    #[test]
    fn plain_http_after_https_is_a_choice() {
        let from = "https://reg.io/v2/app/blobs/x";
        assert_eq!(to(from, b"http://s.io/a", true).as_deref(), Some("http://s.io/a"));
        assert_eq!(to(from, b"http://s.io/a", false), None);
        assert!(to("http://reg.io/v2/", b"http://s.io/a", false).is_some());
    }
}
