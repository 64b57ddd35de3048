//! All programs together, with real clients.

pub mod image;
