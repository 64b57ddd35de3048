//! `coracle`: the OCI runtime's command line. It stands in for runc: the same commands, flags, output and exit codes.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli;

/// This program lives for milliseconds; even `run` in the foreground allocates nothing while it waits.
#[global_allocator]
static ALLOCATOR: coracle_linux::bump::Bump = coracle_linux::bump::Bump::new();

fn main() -> std::process::ExitCode {
    cli::main()
}
