//! `coracle-cni`: the CNI plugins as one program. The name it is called by says which plugin it is.
//!
//! ```text
//!  bridge, host-local, loopback, portmap, firewall, tuning -> plugin (links made by `coracle-cni install DIR`)
//!  coracle-cni install DIR | uninstall-network NAME [--force] | --version
//! ```

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attach;
mod bridge;
mod command;
mod failure;
mod firewall;
mod host_local;
mod install;
mod ipam;
mod linger;
mod loopback;
mod netns;
mod owner;
mod portmap;
mod record;
mod rules;
mod sysctl;
mod table;
mod tuning;
mod undo;
mod uninstall_network;

use coracle_cni_protocol::plugin::{self, Environment, Output};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use table::PLUGINS;

/// The program lives for a millisecond or two: memory is taken and never given back.
#[global_allocator]
static ALLOCATOR: coracle_linux::bump::Bump = coracle_linux::bump::Bump::new();

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let called = args
        .first()
        .map(Path::new)
        .and_then(Path::file_name)
        .unwrap_or_default();
    let output = match PLUGINS.iter().find(|plugin| called == plugin.name) {
        Some(plugin) => {
            let about = format!("Coracle CNI {} plugin {}", plugin.name, env!("CARGO_PKG_VERSION"));
            plugin::run(&about, plugin, Environment::of_process(), read_input)
        }
        None => command::run(args.get(1..).unwrap_or_default()),
    };
    finish(&output)
}

fn read_input() -> io::Result<Vec<u8>> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    Ok(input)
}

/// That the reader went away does not make the plugin's work fail.
fn finish(output: &Output) -> ExitCode {
    let _ = io::stderr().write_all(output.stderr.as_bytes());
    let _ = io::stdout().write_all(output.stdout.as_bytes());
    ExitCode::from(output.code)
}
