//! Black-box tests of each program at its own boundary.
pub mod bundle;
