//! The OCI runtime as a library: a bundle becomes a container.
