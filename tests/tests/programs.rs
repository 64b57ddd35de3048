//! The release programs are what PROMISES.md says: static, stripped, small.

use std::fs;

use coracle_tests::program;

/// Program and the most that its file may take, in bytes.
const LARGEST: &[(&str, usize)] = &[
    ("coracle", 3_500_000),
    ("coracle-shim", 4_000_000),
    ("coracle-cni", 1_300_000),
    ("coracled", 8_500_000),
    ("coraclectl", 2_500_000),
];

/// elf(5): program header types and section types.
const PT_INTERP: u32 = 3;
const SHT_SYMTAB: u32 = 2;

#[test]
fn release_programs_are_static_stripped_and_small() {
    let mut wrong = Vec::new();
    for (name, largest) in LARGEST {
        let file = fs::read(program::path(name)).unwrap();
        if file.len() > *largest {
            wrong.push(format!("{name} takes {} bytes, more than {largest}", file.len()));
        }
        let elf = Elf(&file);
        if elf.program_header_types().contains(&PT_INTERP) {
            wrong.push(format!("{name} wants a dynamic loader"));
        }
        if elf.section_types().contains(&SHT_SYMTAB) {
            wrong.push(format!("{name} has a symbol table"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A 64-bit little-endian ELF file; the offsets are those of its header in elf(5).
struct Elf<'a>(&'a [u8]);

impl Elf<'_> {
    fn program_header_types(&self) -> Vec<u32> {
        self.table(self.long(32), self.short(54), self.short(56), 0)
    }

    fn section_types(&self) -> Vec<u32> {
        self.table(self.long(40), self.short(58), self.short(60), 4)
    }

    fn table(&self, start: usize, entry: usize, count: usize, field: usize) -> Vec<u32> {
        (0..count)
            .map(|index| u32::from_le_bytes(self.bytes(start + index * entry + field)))
            .collect()
    }

    fn long(&self, offset: usize) -> usize {
        usize::try_from(u64::from_le_bytes(self.bytes(offset))).unwrap()
    }

    fn short(&self, offset: usize) -> usize {
        usize::from(u16::from_le_bytes(self.bytes(offset)))
    }

    fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.0[offset..offset + N].try_into().unwrap()
    }
}
