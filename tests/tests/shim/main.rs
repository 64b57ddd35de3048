//! `coracle-shim` at its own boundary: the real program, driven over its socket.

mod exec;
mod footprint;
mod lifecycle;
mod logs;
mod pid_namespace;
mod pod;
mod process;
