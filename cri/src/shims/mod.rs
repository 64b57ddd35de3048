//! The pods' shims: starting one, finding it again, and noticing at once when one dies.
//!
//! ```text
//!   coracled                                          coracle-shim
//!      | bind STATE/pods/<id>/shim.sock                    |
//!      | posix_spawn: own session, 3 = that socket ------->|
//!      | connect; StartPod, CreateContainer ... ---------->|   shim/api
//!      | poll pidfd <- - - - - - - - - - - - - - - - - - - |   readable when it has ended, however it ended
//! ```

pub(crate) mod dead;
mod find;
mod program;
mod start;
pub(crate) mod watch;

pub(crate) use find::{Found, find_again};
pub(crate) use program::find_program;
pub(crate) use start::{
    ShimError, Started, collect_ended, kill, report_log, shut_down, silence, start, watch,
};
