//! Turns kernel interfaces into safe, typed Rust; the only crate where unsafe code is allowed.
