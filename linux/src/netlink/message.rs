//! Building and reading netlink messages: a 16-byte header, a fixed header of the family, attributes.

/// The first bytes of every message: length, type, flags, sequence, port (`struct nlmsghdr`).
pub(super) const HEADER: usize = 16;
/// Attribute types use 14 bits; the upper two say nested and network byte order.
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

/// One request, ready but for its sequence number, which the socket gives it.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
    label: &'static str,
    oversized: bool,
}

impl Message {
    /// A request of `kind` with the family's fixed header `body`. `label` says in errors what was being done.
    pub fn new(label: &'static str, kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; HEADER]);
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(body);
        let mut message = Self {
            bytes,
            label,
            oversized: false,
        };
        message.align();
        message
    }

    /// The same request about another family: the first byte of each family's fixed header.
    #[must_use]
    pub fn of_family(mut self, family: u8) -> Self {
        if let Some(byte) = self.bytes.get_mut(HEADER) {
            *byte = family;
        }
        self
    }

    /// Adds an attribute with these bytes.
    #[must_use]
    pub fn with(mut self, kind: u16, payload: &[u8]) -> Self {
        self.push(kind, payload);
        self
    }

    /// Adds a number in the machine's byte order, as rtnetlink wants them.
    #[must_use]
    pub fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order, as nf_tables wants them.
    #[must_use]
    pub fn with_be32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_be_bytes())
    }

    /// Adds one byte.
    #[must_use]
    pub fn with_u8(self, kind: u16, value: u8) -> Self {
        self.with(kind, &[value])
    }

    /// Adds a string with the final zero byte the kernel expects.
    #[must_use]
    pub fn with_text(mut self, kind: u16, text: &str) -> Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.close(start, 0);
        self
    }

    /// Adds an attribute that holds the attributes `fill` adds.
    #[must_use]
    pub fn with_nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.open(kind);
        self = fill(self);
        self.close(start, NESTED);
        self
    }

    /// Adds bytes that are not an attribute (the inner header of `VETH_INFO_PEER`).
    #[must_use]
    pub fn with_raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.align();
        self
    }

    /// What this request does, for errors.
    pub(super) fn label(&self) -> &'static str {
        self.label
    }

    /// Whether some length did not fit its field: such a message must not be sent.
    pub(super) fn oversized(&self) -> bool {
        self.oversized
    }

    /// The finished bytes with this sequence number and additional flags.
    pub(super) fn append_to(&self, batch: &mut Vec<u8>, sequence: u32, flags: u16) {
        let start = batch.len();
        batch.extend_from_slice(&self.bytes);
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        batch[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        batch[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        batch[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }

    fn push(&mut self, kind: u16, payload: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(payload);
        self.close(start, 0);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize, flag: u16) {
        let Ok(length) = u16::try_from(self.bytes.len() - start) else {
            self.oversized = true;
            return;
        };
        let kind = u16::from_ne_bytes([self.bytes[start + 2], self.bytes[start + 3]]) | flag;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Walks attributes; a truncated tail ends the walk.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The payload of the first attribute of this kind.
    pub fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find_map(|(found, payload)| (found == kind).then_some(payload))
    }

    /// A nested attribute's content; empty when absent.
    #[must_use]
    pub fn inside(self, kind: u16) -> Attributes<'a> {
        Attributes(self.find(kind).unwrap_or_default())
    }

    /// A number in the machine's byte order.
    pub fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.find(kind)?.get(..4)?.try_into().ok()?))
    }

    /// A number in network byte order.
    pub fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.get(..4)?.try_into().ok()?))
    }

    /// A string, without its final zero byte.
    pub fn text(self, kind: u16) -> Option<String> {
        let bytes = self.find(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let message = Message::new("test", 1, 2, &[9; 4])
            .with_text(3, "eth0")
            .with_nested(4, |inner| inner.with_u32(5, 77).with_be32(6, 78).with_u8(7, 1));
        let mut bytes = Vec::new();
        message.append_to(&mut bytes, 42, 4);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(
            u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize,
            bytes.len()
        );
        let attributes = Attributes(&bytes[HEADER + 4..]);
        assert_eq!(attributes.text(3).as_deref(), Some("eth0"));
        assert_eq!(attributes.inside(4).u32(5), Some(77));
        assert_eq!(attributes.inside(4).be32(6), Some(78));
        assert_eq!(attributes.find(99), None);
    }

    #[test]
    fn truncated_and_absurd_lengths_end_the_walk() {
        for bytes in [
            &[][..],
            &[1],
            &[0, 0, 1, 0],
            &[255, 255, 1, 0, 1],
            &[3, 0, 1, 0, 1],
        ] {
            assert_eq!(Attributes(bytes).count(), 0);
        }
    }

    #[test]
    fn an_attribute_over_64_kib_is_not_sent() {
        assert!(
            Message::new("test", 1, 0, &[])
                .with(1, &vec![0; 70_000])
                .oversized()
        );
    }
}
