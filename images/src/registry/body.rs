//! The bodies of answers: read with a bound in size and in waiting.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Response, Uri};

use super::RegistryError;
use super::encoding::Decoder;

/// A body that brings nothing for this long is broken.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A URL for messages: without the query, which may hold signatures.
pub(super) fn shown(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!(
        "{}://{authority}{}",
        uri.scheme_str().unwrap_or_default(),
        uri.path()
    )
}

/// Reads a small body.
pub(super) async fn read_all(
    uri: &Uri,
    response: Response<Incoming>,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = next_chunk(uri, &mut body).await? {
        if bytes.len() as u64 + chunk.len() as u64 > limit {
            return Err(RegistryError::TooLarge {
                url: shown(uri),
                limit,
            });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads a small JSON document, decoded if its headers say that it is encoded.
pub(super) async fn read_document(
    uri: &Uri,
    response: Response<Incoming>,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    let headers = response.headers().clone();
    let bytes = read_all(uri, response, limit).await?;
    decode(uri, &headers, bytes, limit)
}

/// The JSON document in `bytes`, which came with `headers`.
pub(super) fn decode(
    uri: &Uri,
    headers: &HeaderMap,
    bytes: Vec<u8>,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    let decoded = match Decoder::of(headers) {
        // Some servers say that they encode and do not.
        _ if bytes.trim_ascii_start().starts_with(b"{") => return Ok(bytes),
        Ok(None) => Ok(bytes),
        Ok(Some(decoder)) => decoder.all(&bytes, limit),
        Err(error) => Err(error),
    };
    let decoded = decoded.map_err(|source| RegistryError::Encoding {
        url: shown(uri),
        source,
    })?;
    if decoded.len() as u64 > limit {
        return Err(RegistryError::TooLarge {
            url: shown(uri),
            limit,
        });
    }
    Ok(decoded)
}

/// The next part of a body; `None` at its end.
pub(super) async fn next_chunk(uri: &Uri, body: &mut Incoming) -> Result<Option<Bytes>, RegistryError> {
    loop {
        let frame = tokio::time::timeout(IDLE_TIMEOUT, body.frame())
            .await
            .map_err(|_| RegistryError::Timeout {
                url: shown(uri),
                seconds: IDLE_TIMEOUT.as_secs(),
            })?;
        match frame {
            None => return Ok(None),
            Some(Err(source)) => {
                return Err(RegistryError::Body {
                    url: shown(uri),
                    source,
                });
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_) => {} // trailers
            },
        }
    }
}

/// The messages of a distribution error body, or its beginning.
pub(super) fn words(body: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let errors = parsed.as_ref().and_then(|value| value.get("errors")?.as_array());
    let text = match errors {
        Some(errors) => {
            let word = |error: &serde_json::Value, key: &str| {
                error
                    .get(key)
                    .and_then(|word| word.as_str())
                    .unwrap_or_default()
                    .to_owned()
            };
            let each = errors
                .iter()
                .map(|error| format!("{}: {}", word(error, "code"), word(error, "message")));
            each.collect::<Vec<_>>().join("; ")
        }
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
