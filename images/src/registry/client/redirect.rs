//! Where a redirect leads, if it may be followed.

use hyper::body::Incoming;
use hyper::header::LOCATION;
use hyper::{Response, Uri};

use crate::registry::RegistryError;
use crate::registry::body::shown;

pub(super) fn redirected(from: &Uri, response: &Response<Incoming>) -> Result<Uri, RegistryError> {
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let bad = || RegistryError::BadRedirect {
        url: shown(from),
        location: location.chars().take(200).collect(),
    };
    let text = match location.split_once("://") {
        Some(_) => location.to_owned(),
        None if location.starts_with("//") => format!("{}:{location}", from.scheme_str().unwrap_or_default()),
        None if location.starts_with('/') => {
            let authority = from.authority().map_or("", |authority| authority.as_str());
            format!(
                "{}://{authority}{location}",
                from.scheme_str().unwrap_or_default()
            )
        }
        None => return Err(bad()),
    };
    let to: Uri = text.parse().map_err(|_| bad())?;
    let downgrade = from.scheme_str() == Some("https") && to.scheme_str() != Some("https");
    if downgrade || to.authority().is_none() || !matches!(to.scheme_str(), Some("http" | "https")) {
        return Err(bad());
    }
    Ok(to)
}
