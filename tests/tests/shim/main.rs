//! `coracle-shim` at its own boundary: the real program, driven over its socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod exec;
mod footprint;
mod lifecycle;
mod logs;
mod pid_namespace;
mod pod;
mod process;
