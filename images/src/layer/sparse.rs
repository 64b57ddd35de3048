//! Sparse files in archives: GNU's own format and the three PAX ones (GNU tar manual, "Storing Sparse Files").

use std::io::Read;

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::pax::{Pax, decimal};
use super::tar_stream::{BLOCK, TarError, TarStream};

const SPARSE_SEGMENTS_MAX: usize = 65_536;

impl<R: Read> TarStream<R> {
    /// The sparse map and real size of an entry; inner `None` as error means a malformed map.
    #[allow(clippy::type_complexity)] // used once, right above
    pub(super) fn sparse(
        &mut self,
        header: &Header,
        pax: &Pax,
        stored: u64,
    ) -> Result<(Option<Vec<(u64, u64)>>, u64), Option<TarError>> {
        let (numbers, real) = if header.entry_type() == EntryType::GNUSparse {
            self.gnu_sparse(header)?
        } else if let Some(real) = pax.number("GNU.sparse.realsize").map_err(|()| None)? {
            (self.pax_sparse_1_0()?, real)
        } else if let Some(real) = pax.number("GNU.sparse.size").map_err(|()| None)? {
            (pax.sparse_0().ok_or(None)?, real)
        } else {
            return Ok((None, stored));
        };
        let map: Vec<(u64, u64)> = numbers
            .chunks_exact(2)
            .filter_map(|p| Some((*p.first()?, *p.get(1)?)))
            .collect();
        if numbers.len() % 2 != 0 || map.len() > SPARSE_SEGMENTS_MAX {
            return Err(None);
        }
        let mut end = 0_u64;
        let mut total = 0_u64;
        for (offset, length) in &map {
            if *offset < end {
                return Err(None);
            }
            end = offset.checked_add(*length).ok_or(None)?;
            total = total.checked_add(*length).ok_or(None)?;
        }
        if end > real || total != self.remaining {
            return Err(None);
        }
        Ok((Some(map), real))
    }

    /// GNU's own format: four segments in the header, then blocks of 21.
    fn gnu_sparse(&mut self, header: &Header) -> Result<(Vec<u64>, u64), Option<TarError>> {
        let gnu = header.as_gnu().ok_or(None)?;
        let mut numbers = Vec::new();
        let mut push = |headers: &[tar::GnuSparseHeader]| -> Result<(), Option<TarError>> {
            for segment in headers.iter().filter(|segment| !segment.is_empty()) {
                numbers.push(segment.offset().map_err(|_| None)?);
                numbers.push(segment.length().map_err(|_| None)?);
            }
            if numbers.len() > 2 * SPARSE_SEGMENTS_MAX {
                Err(None)
            } else {
                Ok(())
            }
        };
        push(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = [0; BLOCK];
            self.block(&mut block).map_err(Some)?.ok_or(None)?;
            let mut extended = GnuExtSparseHeader::new();
            extended.as_mut_bytes().copy_from_slice(&block);
            push(&extended.sparse)?;
            more = extended.is_extended();
        }
        Ok((numbers, gnu.real_size().map_err(|_| None)?))
    }

    /// PAX sparse 1.0: the map is decimal lines in front of the data, filled up to a block.
    fn pax_sparse_1_0(&mut self) -> Result<Vec<u64>, Option<TarError>> {
        let mut lines = NumberLines::default();
        while !lines.complete() {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block).map_err(|error| Some(error.into()))?;
            lines.push(&block).ok_or(None)?;
        }
        lines.numbers.remove(0);
        Ok(lines.numbers)
    }
}

/// Collects the count and the numbers of a PAX 1.0 sparse map.
#[derive(Default)]
struct NumberLines {
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl NumberLines {
    fn complete(&self) -> bool {
        self.numbers
            .first()
            .is_some_and(|count| self.numbers.len() as u64 > count.saturating_mul(2))
    }

    fn push(&mut self, block: &[u8]) -> Option<()> {
        for byte in block {
            if self.complete() {
                break;
            }
            match byte {
                b'\n' => {
                    self.numbers.push(decimal(&self.digits)?);
                    self.digits.clear();
                }
                digit => self.digits.push(*digit),
            }
            let count = self.numbers.first().copied().unwrap_or(0);
            if self.digits.len() > 20 || count > SPARSE_SEGMENTS_MAX as u64 {
                return None;
            }
        }
        Some(())
    }
}
