//! Comments, which nft(8) keeps in the user data of every object.

/// The kernel takes up to 256 bytes of userdata; type, length and final zero need three.
const COMMENT_BYTES: usize = 250;

/// A comment as nft writes and shows it: type 0, length, text, final zero. Text beyond 250 bytes is cut.
pub fn comment(text: &str) -> Vec<u8> {
    let mut cut = text.len().min(COMMENT_BYTES);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut bytes = vec![0, u8::try_from(cut + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(&text.as_bytes()[..cut]);
    bytes.push(0);
    bytes
}

/// The text of a comment.
pub(super) fn read_comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let [kind, length, tail @ ..] = rest {
        let value = tail.get(..usize::from(*length))?;
        if *kind == 0 {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = tail.get(usize::from(*length)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_read_back_and_cut_at_a_character() {
        assert_eq!(
            read_comment(&comment("net/id/eth0")).as_deref(),
            Some("net/id/eth0")
        );
        let long = "ä".repeat(200);
        assert_eq!(read_comment(&comment(&long)).unwrap(), "ä".repeat(125));
        assert_eq!(read_comment(&[1, 9, 0]), None);
    }
}
