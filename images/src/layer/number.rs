//! Ids and times of an entry, from its header or from PAX records.

use std::io;

use tar::Header;

use super::pax::{Pax, seconds};

/// A user or group id. Writers that hold it in a signed or a wider number give what chown(2) makes of that: its low 32 bits, and
/// the first user for the number that means none.
pub(super) fn id(pax: &Pax, key: &str, own: io::Result<u64>, raw: &[u8]) -> Option<u32> {
    let low_bits = |bytes: &[u8]| bytes.last_chunk::<4>().map(|low| u32::from_be_bytes(*low));
    let id = match (pax.get(key), raw.first()) {
        (Some(text), _) => {
            let number: i128 = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
            low_bits(&number.to_be_bytes())
        }
        (None, _) if is_blank(raw) => Some(0),
        // Base-256, possibly negative.
        (None, Some(first)) if first & 0x80 != 0 => low_bits(raw),
        (None, _) => low_bits(&own.ok()?.to_be_bytes()),
    };
    id.map(|id| if id == u32::MAX { 0 } else { id })
}

pub(super) fn mtime(header: &Header, pax: &Pax) -> Option<(i64, u32)> {
    match pax.get("mtime") {
        Some(text) => seconds(text),
        // Times before 1970 in base-256 do not fit the decoder; they are not worth refusing an image.
        None => Some((
            header
                .mtime()
                .ok()
                .and_then(|t| i64::try_from(t).ok())
                .unwrap_or(0),
            0,
        )),
    }
}

/// Some writers leave numbers they have no use for empty, which other readers take as 0.
pub(super) fn is_blank(field: &[u8]) -> bool {
    field.iter().all(|b| matches!(b, 0 | b' '))
}
