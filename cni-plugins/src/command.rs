//! The program under its own name: what a person calls.

use crate::install::install;
use crate::table::PLUGINS;
use crate::uninstall_network::uninstall_network;
use coracle_cni_protocol::chain;
use coracle_cni_protocol::plugin::Output;
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;
use std::path::PathBuf;

const USAGE: &str = "\
Usage: coracle-cni install DIR                       make links to this program in DIR under the plugins' names
       coracle-cni uninstall-network NAME [--force]  remove what a network left on this host: bridge, rules, settings
       coracle-cni --version
       coracle-cni --help
";

/// A command line.
#[derive(Debug)]
enum Command {
    Install(PathBuf),
    UninstallNetwork { name: String, force: bool },
    Version,
    Help,
}

/// Runs a command line; returns what to print and the exit code: 1 for a failure, 2 for a wrong command line.
pub(crate) fn run(args: &[OsString]) -> Output {
    let command = match parse(Parser::from_args(args)) {
        Ok(command) => command,
        Err(error) => {
            return Output {
                stderr: format!("coracle-cni: {}\n\n{}", chain(&error), usage()),
                code: 2,
                ..Output::default()
            };
        }
    };
    let done = match command {
        Command::Install(dir) => install(&dir).map_err(|error| chain(&error)),
        Command::UninstallNetwork { name, force } => {
            uninstall_network(&name, force).map_err(|error| chain(&error))
        }
        Command::Version => return print(format!("coracle-cni {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Help => return print(usage()),
    };
    match done {
        Ok(()) => Output::default(),
        Err(text) => Output {
            stderr: format!("coracle-cni: {text}\n"),
            code: 1,
            ..Output::default()
        },
    }
}

fn parse(mut args: Parser) -> Result<Command, lexopt::Error> {
    let command = match args.next()? {
        Some(Arg::Value(word)) if word == "install" => Command::Install(operand(&mut args)?.into()),
        Some(Arg::Value(word)) if word == "uninstall-network" => {
            let mut force = false;
            let mut names = Vec::new();
            while let Some(arg) = args.next()? {
                match arg {
                    Arg::Long("force") => force = true,
                    Arg::Value(value) if names.is_empty() => names.push(value.string()?),
                    other => return Err(other.unexpected()),
                }
            }
            let name = names.pop().ok_or("a NAME is missing")?;
            Command::UninstallNetwork { name, force }
        }
        Some(Arg::Long("version")) => Command::Version,
        Some(Arg::Long("help") | Arg::Short('h')) => Command::Help,
        Some(other) => return Err(other.unexpected()),
        None => return Err("a command is missing".into()),
    };
    match args.next()? {
        Some(more) => Err(more.unexpected()),
        None => Ok(command),
    }
}

fn operand(args: &mut Parser) -> Result<OsString, lexopt::Error> {
    match args.next()? {
        Some(Arg::Value(value)) => Ok(value),
        Some(other) => Err(other.unexpected()),
        None => Err("a DIR is missing".into()),
    }
}

fn usage() -> String {
    let names = PLUGINS.map(|plugin| plugin.name).join(", ");
    format!("{USAGE}\nAs a CNI plugin the program is called by the name of a link: {names}.\n")
}

fn print(stdout: String) -> Output {
    Output {
        stdout,
        ..Output::default()
    }
}
