//! Chooses the decompressor by the first bytes, not by the media type: builders get the type wrong, the bytes never lie.

use std::io::{self, BufReader, Chain, Cursor, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// zstd's skippable frames (0x184D2A50 to 5F, little endian) may come first.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
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
        let mut magic = Vec::with_capacity(4);
        (&mut source).take(4).read_to_end(&mut magic)?;
        let gzip = magic.starts_with(&GZIP);
        let zstd = magic == ZSTD || magic.get(1..) == Some(&ZSTD_SKIPPABLE);
        let source = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(source));
        Ok(match (gzip, zstd) {
            (true, _) => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            (_, true) => Self::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?)),
            _ => Self::Plain(source),
        })
    }
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
