//! From an image reference to a root filesystem.
