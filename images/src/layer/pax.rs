//! PAX extension records (POSIX.1-2017, pax, "pax Extended Header").

use std::collections::BTreeMap;

/// PAX records, and what GNU's extension entries say, for the next entry.
#[derive(Clone, Default)]
pub(super) struct Pax {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// GNU.sparse.offset and numbytes of format 0.0, which repeats the keys.
    sparse_numbers: Vec<u64>,
}

impl Pax {
    /// Adds records of the form `LENGTH KEY=VALUE\n`; an empty value deletes the key.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|b| *b == b' ')?;
            let length = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|b| *b == b'=')?;
            let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
            if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
                self.sparse_numbers.push(decimal(value)?);
            } else if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
                self.records.remove(key);
            } else {
                self.records.insert(key.to_vec(), value.to_vec());
            }
            bytes = bytes.get(length..)?;
        }
        Some(())
    }

    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.records.get(key.as_bytes()).map(Vec::as_slice)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, ()> {
        self.get(key).map(|text| decimal(text).ok_or(())).transpose()
    }

    pub(super) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let named = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()))
        };
        self.records.iter().filter_map(named).collect()
    }

    /// The map of the formats 0.0 (repeated keys) and 0.1 (one comma-separated list); `None` when it is malformed.
    pub(super) fn sparse_0(&self) -> Option<Vec<u64>> {
        match self.get("GNU.sparse.map") {
            Some(list) => list.split(|b| *b == b',').map(decimal).collect(),
            None => Some(self.sparse_numbers.clone()),
        }
    }
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// PAX times are decimal seconds with an optional fraction, possibly negative.
pub(super) fn seconds(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole_seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((whole_seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((whole_seconds, nanos))
}
