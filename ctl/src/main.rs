//! `coraclectl`: the person's command. It speaks CRI to coracled, and nothing else: no store is opened, no container
//! touched from here.
//!
//! ```text
//! coraclectl play pod.yaml
//!    | manifest: strict reading        | plan: CRI requests
//!    | play: volumes, order, restarts, logs, clean end
//!    +---- CRI on a unix socket ----> coracled
//! ```

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod doctor;
mod down;
mod error;
mod exec;
mod image;
mod logs;
mod manifest;
mod plan;
mod play;
mod pods;
mod ps;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use thiserror::Error;

use client::{Address, Client};

/// Runs and shows pods on this machine through coracled.
#[derive(Debug, Parser)]
#[command(name = "coraclectl", version)]
struct Arguments {
    /// Where coracled listens.
    #[arg(
        long,
        global = true,
        env = "CORACLE_ADDRESS",
        default_value = "unix:///run/coracle/coracled.sock"
    )]
    address: Address,
    /// Where played pods keep volumes and logs; one directory a pod, removed with it.
    #[arg(
        long,
        global = true,
        env = "CORACLECTL_DATA",
        default_value = "/var/lib/coraclectl"
    )]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Play(play::Arguments),
    Down(down::Arguments),
    Ps(ps::Arguments),
    Exec(exec::Arguments),
    Logs(logs::Arguments),
    Doctor(doctor::Arguments),
    /// Images of the daemon.
    #[command(subcommand)]
    Image(image::Command),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::Executor(error)),
    };
    let result = runtime.block_on(run(arguments));
    // A thread of the pool may sit in a read of standard input that never returns.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => report(&error),
    }
}

/// One command; its exit code.
async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let client = Client::new(&arguments.address);
    Ok(match arguments.command {
        Command::Play(command) => play::run(client, &arguments.data, command).await?,
        Command::Down(command) => down::run(&client, &arguments.data, &command).await?,
        Command::Ps(command) => ps::run(&client, &command).await?,
        Command::Exec(command) => exec::run(&client, command).await?,
        Command::Logs(command) => logs::run(&client, &command).await?,
        Command::Doctor(command) => doctor::run(&client, &command).await?,
        Command::Image(command) => image::run(&client, command).await?,
    })
}

/// What ended the program before its time.
#[derive(Debug, Error)]
enum Failure {
    #[error("start the executor of calls and timers")]
    Executor(#[source] io::Error),
    #[error(transparent)]
    Play(#[from] play::PlayError),
    #[error(transparent)]
    Down(#[from] down::DownError),
    #[error(transparent)]
    Ps(#[from] ps::PsError),
    #[error(transparent)]
    Exec(#[from] exec::ExecError),
    #[error(transparent)]
    Logs(#[from] logs::LogsError),
    #[error(transparent)]
    Doctor(#[from] doctor::DoctorError),
    #[error(transparent)]
    Image(#[from] image::ImageError),
}

fn report(failure: &Failure) -> ExitCode {
    // Standard error may be closed; the exit code tells, too.
    let _ = writeln!(io::stderr(), "coraclectl: {}", error::chain(failure));
    ExitCode::FAILURE
}
