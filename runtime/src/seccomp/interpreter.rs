//! A classic BPF interpreter for the instructions seccomp filters use, so that tests can run a compiled profile.

/// The input of a filter.
#[derive(Clone, Copy)]
pub(super) struct Data {
    pub(super) nr: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

/// Runs `program`; panics on what the kernel's verifier would refuse.
pub(super) fn run(program: &[libc::sock_filter], data: &Data) -> u32 {
    let mut accumulator = 0u32;
    let mut at = 0usize;
    loop {
        let i = &program[at];
        at += 1;
        match i.code {
            0x20 => accumulator = load(data, i.k),
            0x54 => accumulator &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += usize::from(if accumulator == i.k { i.jt } else { i.jf }),
            0x25 => at += usize::from(if accumulator > i.k { i.jt } else { i.jf }),
            0x35 => at += usize::from(if accumulator >= i.k { i.jt } else { i.jf }),
            0x06 => return i.k,
            other => panic!("instruction {other:#x} at {at}"),
        }
    }
}

fn load(data: &Data, offset: u32) -> u32 {
    let mut bytes = Vec::from(data.nr.to_le_bytes());
    bytes.extend(data.arch.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    data.args.iter().for_each(|arg| bytes.extend(arg.to_le_bytes()));
    let at = offset as usize;
    assert!(at.is_multiple_of(4), "unaligned load");
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
