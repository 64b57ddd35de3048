//! coracled: one daemon per node; answers the kubelet.
//!
//! ```text
//!  kubelet, crictl, coraclectl --- gRPC, unix socket ---> runtime_service/   image_service/   import.rs
//!                                                              |                  |
//!     steps/ (named steps, undo, spans, fail points) <---------+                  v
//!        |          |            |            |                            coracle-images
//!        v          v            v            v
//!     pods/       shims/      network/     spec/ (config.json)      stats/ (figures)
//!       | records   shim/api    CNI          cgroup_parents.rs
//!       v
//!     store/
//! ```

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cgroup;
mod cgroup_parents;
mod clock;
mod config;
mod daemon;
mod error;
mod grpc;
mod host_path;
mod image_service;
mod import;
mod network;
mod pod_files;
mod pods;
mod recover;
mod runtime_service;
mod serve;
mod shims;
mod spec;
mod state_lock;
mod stats;
mod steps;
mod store;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::{Command, Config, ConfigError, Flags};
use crate::daemon::{Daemon, StartError};
use crate::error::chain;
use crate::serve::ServeError;
use crate::steps::ParseFailPointError;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    FailPoint(#[from] ParseFailPointError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("start the executor")]
    Executor(#[source] std::io::Error),
    #[error("write the names of the steps")]
    Output(#[source] std::io::Error),
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    start_log();
    let result = match &flags.command {
        Some(Command::Config(command)) => command.run().map_err(Error::Config),
        None if flags.list_steps => list_steps(),
        None => run(flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracled: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<(), Error> {
    let config = Config::load(flags)?;
    if let Some(point) = &config.fail_point {
        point.check(runtime_service::step_names())?;
    }
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::Executor)?;
    executor.block_on(async {
        let daemon = Daemon::open(config)?;
        let listener = serve::listen(&daemon.config).await?;
        recover::recover(&daemon).await;
        daemon.sampler().start();
        serve::serve(&daemon, listener).await?;
        Ok::<(), Error>(())
    })?;
    // Requests in progress are left where they are: the next start finishes or undoes them, pods run on.
    executor.shutdown_background();
    Ok(())
}

fn list_steps() -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    for name in runtime_service::step_names() {
        writeln!(out, "{name}").map_err(Error::Output)?;
    }
    Ok(())
}

/// On stderr; RUST_LOG sets what is said.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(filter)
        .init();
}
