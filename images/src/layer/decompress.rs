//! Chooses the decompressor by the first bytes, not by the media type: builders get the type wrong, the bytes never lie.

use std::io::{self, BufReader, Chain, Cursor, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// zstd's skippable frames (0x184D2A50 to 5F, little endian) may come first.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// Compressions that are known and not read, by how they begin.
const UNREAD: [(&str, &[u8]); 3] = [
    ("xz", b"\xfd7zXZ\0"),
    ("lz4", b"\x04\x22\x4d\x18"),
    ("bzip2", b"BZh"),
];
/// What follows `BZh` and a digit.
const BZIP2_BLOCK: &[u8] = b"1AY&SY";
const MAGIC_MAX: usize = 10;
const BUFFER: usize = 64 * 1024;

type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// Reads the uncompressed form of a gzip, zstd or plain stream.
pub(crate) enum Decompressor<R: Read> {
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<Peeked<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Peeked<R>>>>),
    Plain(BufReader<Peeked<R>>),
}

impl<R: Read> Decompressor<R> {
    pub(crate) fn new(mut source: R) -> io::Result<Self> {
        let mut magic = Vec::with_capacity(MAGIC_MAX);
        (&mut source).take(MAGIC_MAX as u64).read_to_end(&mut magic)?;
        let gzip = magic.starts_with(&GZIP);
        let zstd = magic.starts_with(&ZSTD) || magic.get(1..4) == Some(&ZSTD_SKIPPABLE);
        if let Some(name) = unread(&magic) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, Unread(name)));
        }
        let source = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(source));
        Ok(match (gzip, zstd) {
            (true, _) => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            (_, true) => Self::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?)),
            _ => Self::Plain(source),
        })
    }
}

/// A compression that is not read here.
#[derive(Debug, thiserror::Error)]
#[error("it is compressed with {0}; gzip and zstd are read")]
struct Unread(&'static str);

fn unread(magic: &[u8]) -> Option<&'static str> {
    let found = UNREAD.iter().find(|(_, start)| magic.starts_with(start))?;
    // The name of a file may begin with the same letters.
    let is = found.0 != "bzip2" || magic.get(4..) == Some(BZIP2_BLOCK);
    is.then_some(found.0)
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Plain(source) => source.read(buffer),
        }
    }
}
