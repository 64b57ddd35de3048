//! All programs together, with real clients.
