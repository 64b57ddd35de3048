//! All programs together, with real clients: the fixtures of the tests in `tests/` and of the benchmark.
//!
//! ```no_run
//! use coracle_integration::{daemon::Daemon, leak::Snapshot, node};
//!
//! node::run("my-test", |node| {
//!     let before = Snapshot::take(node);
//!     let daemon = Daemon::start(node);
//!     // ... pods come and go ...
//!     daemon.stop();
//!     before.assert_nothing_left(node);
//! });
//! ```
//!
//! A fixture that cannot do its work panics with the reason, as a test would: hence the allowances below.

pub mod cgroups;
pub mod containerd;
pub mod cri;
pub mod crictl;
pub mod critest;
pub mod daemon;
pub mod image;
pub mod kubelet;
pub mod leak;
pub mod node;
pub mod pods;
pub mod programs;
pub mod registry;
pub mod wait;
