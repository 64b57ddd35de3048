//! The program under its own name: what a person calls.

use crate::install::install;
use crate::uninstall_network::uninstall_network;
use coracle_cni_protocol::plugin::Output;
use std::ffi::OsString;
use std::path::Path;

const USAGE: &str = "\
Usage: coracle-cni install DIR                       make links to this program in DIR under the plugins' names
       coracle-cni uninstall-network NAME [--force]  remove what a network left on this host: bridge, rules, settings
       coracle-cni --version

As a CNI plugin the program is called by the name of a link: bridge, host-local, loopback, portmap, firewall, tuning.
";

/// Runs a command line; returns what to print and the exit code.
pub(crate) fn run(args: &[OsString]) -> Output {
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let done = |stdout: String| Output {
        stdout,
        ..Output::default()
    };
    let failed = |text: String| Output {
        stderr: format!("coracle-cni: {text}\n"),
        code: 1,
        ..Output::default()
    };
    match (args, words.as_slice()) {
        ([word, dir], _) if word == "install" => match install(Path::new(dir)) {
            Ok(()) => done(String::new()),
            Err(error) => failed(chain(&error)),
        },
        (_, ["uninstall-network", rest @ ..]) if !rest.is_empty() => {
            let names: Vec<_> = rest.iter().filter(|word| **word != "--force").collect();
            match names.as_slice() {
                [name] if !name.starts_with('-') => match uninstall_network(name, names.len() < rest.len()) {
                    Ok(()) => done(String::new()),
                    Err(error) => failed(chain(&error)),
                },
                _ => usage(),
            }
        }
        (_, ["--version"]) => done(format!("coracle-cni {}\n", env!("CARGO_PKG_VERSION"))),
        (_, ["--help" | "-h"]) => done(USAGE.to_owned()),
        _ => usage(),
    }
}

fn usage() -> Output {
    Output {
        stderr: USAGE.to_owned(),
        code: 2,
        ..Output::default()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
