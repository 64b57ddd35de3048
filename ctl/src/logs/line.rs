//! One line of a CRI log file: `TIME stdout|stderr P|F[:MORE] TEXT`.

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) stream: Stream,
    /// The text goes on in the next line of the same stream.
    pub(crate) partial: bool,
    pub(crate) text: &'a [u8],
}

/// Where the container wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl<'a> Line<'a> {
    /// Reads a line without its newline; none when it is not of this form.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let _time = fields.next()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // Further tags may follow the first after a colon.
        let partial = match fields.next()?.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Line {
            stream,
            partial,
            text: fields.next().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let line = Line::parse(b"2026-01-02T03:04:05.678901234Z stderr F a b  c").unwrap();
        assert_eq!(
            line,
            Line {
                stream: Stream::Stderr,
                partial: false,
                text: b"a b  c"
            }
        );
        assert!(Line::parse(b"2026-01-02T03:04:05Z stdout P:x x").unwrap().partial);
        assert_eq!(Line::parse(b"2026-01-02T03:04:05Z stdout F ").unwrap().text, b"");
        assert_eq!(Line::parse(b"2026-01-02T03:04:05Z stdout F").unwrap().text, b"");
        for text in ["", "x", "t stdin F x", "t stdout Q x", "t stdout"] {
            assert_eq!(Line::parse(text.as_bytes()), None, "{text}");
        }
    }
}
