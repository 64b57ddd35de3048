//! Content-Encoding (RFC 9110, 8.4). It is never asked for, but some servers and caches compress whatever they send.

use std::io::{self, Write as _};

use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

/// How much is decoded at a time: bounds what a small piece may swell to.
const PIECE: usize = 4 << 10;

/// Takes encoded bytes and gives decoded ones.
pub(super) enum Decoder {
    Gzip(Box<flate2::write::MultiGzDecoder<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Vec<u8>>>),
}

impl Decoder {
    /// The decoder for what an answer's headers say; `None` when its body is not encoded.
    pub(super) fn of(headers: &HeaderMap) -> io::Result<Option<Self>> {
        let encoding = headers
            .get(CONTENT_ENCODING)
            .and_then(|value| value.to_str().ok());
        let encoding = encoding.unwrap_or_default().trim().to_ascii_lowercase();
        Ok(match encoding.as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip(Box::new(flate2::write::MultiGzDecoder::new(
                Vec::new(),
            )))),
            "zstd" => Some(Self::Zstd(Box::new(zstd::stream::write::Decoder::new(
                Vec::new(),
            )?))),
            _ => None,
        })
    }

    /// Decodes all of `bytes`, at most to `limit` and a little more.
    pub(super) fn all(mut self, bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut decoded = Vec::new();
        for piece in pieces(bytes) {
            decoded.extend(self.push(piece)?);
            if decoded.len() as u64 > limit {
                break;
            }
        }
        decoded.extend(self.end()?);
        Ok(decoded)
    }

    /// What one more piece gives.
    pub(super) fn push(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(decoder) => {
                decoder.write_all(piece)?;
                Ok(std::mem::take(decoder.get_mut()))
            }
            Self::Zstd(decoder) => {
                decoder.write_all(piece)?;
                Ok(std::mem::take(decoder.get_mut()))
            }
        }
    }

    /// What was still held back.
    pub(super) fn end(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(decoder) => {
                decoder.try_finish()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
            Self::Zstd(decoder) => {
                decoder.flush()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
        }
    }
}

/// Pieces to be decoded one by one.
pub(super) fn pieces(bytes: &[u8]) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(PIECE)
}
