//! `coracle-shim`: keeps one pod alive whatever happens to the daemon.
//!
//! ```text
//!  main: run from a sealed image -> own cgroup, subreaper -> one thread, one executor:
//!     server   (server/)   calls over the socket on descriptor 3        --Request-->  driver
//!     driver   (driver/)   owns the pod's and the containers' state     --starts-->   tasks: create, log, exec, end
//!     reaper   (reaper.rs)   collects orphans
//! ```
//! There is exactly one thread, because making a container is a fork of this process.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod args;
mod call;
mod container;
mod driver;
mod ended;
mod exec;
mod own_cgroup;
mod pod;
mod ready;
mod reaper;
mod report;
mod server;
mod streams;
mod trace;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use coracle_linux::inherit;
use coracle_linux::prctl;
use coracle_linux::seal::{self, SealError};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use args::{Args, ArgsError};
use driver::Driver;
use own_cgroup::OwnCgroupError;
use reaper::Reaper;
use trace::Trace;

fn main() -> ExitCode {
    if pod::init::is_wanted() {
        return pod::init::run();
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle-shim: {}", report::chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Args(#[from] ArgsError),
    #[error("--state-dir {0:?} is not a directory")]
    StateDir(PathBuf),
    #[error("--cgroup")]
    Cgroup(#[from] OwnCgroupError),
    #[error("--trace-steps")]
    Trace(#[source] io::Error),
    #[error("change to the root directory")]
    Root(#[source] io::Error),
    #[error("become the subreaper")]
    Subreaper(#[source] io::Error),
    #[error("descriptor 3 is not a listening unix socket")]
    Socket(#[source] io::Error),
    #[error("start the executor")]
    Executor(#[source] io::Error),
}

fn run() -> Result<(), ShimError> {
    seal::reexec_sealed()?;
    let args = Args::parse(std::env::args_os().skip(1))?;
    if !args.state_dir.is_dir() {
        return Err(ShimError::StateDir(args.state_dir));
    }
    let listener = socket()?;
    if let Some(path) = &args.cgroup {
        own_cgroup::enter_shared(path)?;
    }
    let trace = Trace::open(args.trace_steps.as_deref()).map_err(ShimError::Trace)?;
    // Not to keep busy where the daemon was started.
    std::env::set_current_dir("/").map_err(ShimError::Root)?;
    prctl::set_child_subreaper(true).map_err(ShimError::Subreaper)?;
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ShimError::Executor)?;
    executor.block_on(LocalSet::new().run_until(keep(args.id, trace, listener)));
    Ok(())
}

/// Serves until the pod has been shut down.
async fn keep(id: String, trace: Trace, listener: OwnedFd) {
    let (requests, asked) = mpsc::channel(64);
    let reaper = Reaper::default();
    tokio::task::spawn_local(reaper.clone().run());
    tokio::task::spawn_local(server::serve(listener, requests));
    Driver::run(id, trace, reaper, asked).await;
    // The answer to Shutdown is on its way through three tasks; each turn lets all of them take a step.
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// The socket that the daemon left on descriptor 3.
fn socket() -> Result<OwnedFd, ShimError> {
    let failed = |errno: rustix::io::Errno| ShimError::Socket(errno.into());
    let inherited = inherit::descriptor(3).map_err(ShimError::Socket)?;
    let listening = rustix::net::sockopt::socket_acceptconn(&inherited).map_err(failed)?;
    if listening {
        Ok(inherited)
    } else {
        Err(ShimError::Socket(io::ErrorKind::InvalidInput.into()))
    }
}
