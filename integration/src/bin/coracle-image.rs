//! `coracle-image`: an OCI archive from a program and some files, for the demo and the tests.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use coracle_integration::image::{Image, Layer};
use thiserror::Error;

/// Writes an OCI image archive (tar) without a registry or another tool.
#[derive(Debug, Parser)]
struct Arguments {
    /// The name the image gets when imported, with a tag.
    #[arg(long, default_value = "localhost/coracle/payload:1")]
    name: String,
    /// The program that becomes /payload.
    #[arg(long)]
    payload: PathBuf,
    /// A further file, as SOURCE=PATH-IN-IMAGE; it keeps its permission bits.
    #[arg(long, value_name = "SOURCE=PATH")]
    file: Vec<String>,
    /// Entrypoint, once per word (default: /payload).
    #[arg(long, value_name = "WORD")]
    entrypoint: Vec<String>,
    /// Command, once per word (default: serve 8080).
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// NAME=VALUE.
    #[arg(long)]
    env: Vec<String>,
    /// User, name or number.
    #[arg(long, default_value = "")]
    user: String,
    /// Working directory.
    #[arg(long, default_value = "")]
    workdir: String,
    /// Stop signal.
    #[arg(long, default_value = "")]
    stop_signal: String,
    /// So many further layers, each with one file /layer/NUMBER.
    #[arg(long, default_value_t = 0)]
    layers: u32,
    /// Compress the layers.
    #[arg(long)]
    gzip: bool,
    /// Where the archive goes; `-` is stdout.
    #[arg(long)]
    output: PathBuf,
}

#[derive(Debug, Error)]
enum ImageError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("--file {0:?} is not SOURCE=PATH")]
    FileOption(String),
}

fn main() -> ExitCode {
    match build(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            let _ = writeln!(io::stderr(), "coracle-image: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn build(arguments: Arguments) -> Result<(), ImageError> {
    let mut image = Image::of_payload(&arguments.name, read(&arguments.payload)?);
    for option in &arguments.file {
        let (source, path) = option
            .split_once('=')
            .ok_or_else(|| ImageError::FileOption(option.clone()))?;
        let source = PathBuf::from(source);
        let layer = Layer::default().file(path, permissions(&source)?, read(&source)?);
        image.layers.push(layer);
    }
    for number in 0..arguments.layers {
        let layer = Layer::default().directory("layer", 0o755);
        image
            .layers
            .push(layer.file(&format!("layer/{number}"), 0o644, format!("{number}\n")));
    }
    if !arguments.entrypoint.is_empty() {
        image.entrypoint = arguments.entrypoint;
        image.cmd.clear();
    }
    if !arguments.cmd.is_empty() {
        image.cmd = arguments.cmd;
    }
    image.env.extend(arguments.env);
    image.user = arguments.user;
    image.working_dir = arguments.workdir;
    image.stop_signal = arguments.stop_signal;
    image.gzip = arguments.gzip;
    write(&image, arguments.output)
}

fn write(image: &Image, path: PathBuf) -> Result<(), ImageError> {
    let result = if path.as_os_str() == "-" {
        image.write(io::stdout().lock())
    } else {
        File::create(&path).and_then(|file| image.write(BufWriter::new(file)))
    };
    result.map_err(|source| ImageError::Write { path, source })
}

fn read(path: &PathBuf) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|source| ImageError::Read {
        path: path.clone(),
        source,
    })
}

fn permissions(path: &PathBuf) -> Result<u32, ImageError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).map_err(|source| ImageError::Read {
        path: path.clone(),
        source,
    })?;
    Ok(metadata.permissions().mode() & 0o7777)
}
