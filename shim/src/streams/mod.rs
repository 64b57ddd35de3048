//! What the processes of a pod write, and who gets it.

pub(crate) mod log;
