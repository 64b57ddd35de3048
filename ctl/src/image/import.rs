//! `coraclectl image import`: an archive, sent to the daemon piece by piece while it is read.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_cri_api::import_v1::{ImportRequest, ImportedImage};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::client::Client;
use super::super::table;
use super::ImageError;

/// Takes in the images of an OCI or docker archive (tar, also compressed).
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The name for an image that carries none.
    #[arg(long)]
    name: Option<String>,
    /// The archive; `-` or nothing is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
}

pub(super) async fn run(client: &Client, arguments: Arguments) -> Result<u8, ImageError> {
    let mut archive = open(&arguments.file).await?;
    let read = |source| ImageError::Read {
        path: arguments.file.clone(),
        source,
    };
    let first = piece(&mut archive).await.map_err(read)?;
    if first.is_empty() {
        return Err(ImageError::EmptyArchive { path: arguments.file });
    }
    let (sender, receiver) = mpsc::channel(2);
    let failure = Arc::new(Mutex::new(None));
    let reader = tokio::spawn(send_all(
        archive,
        first,
        arguments.name,
        sender,
        Arc::clone(&failure),
    ));
    let result = client
        .import_images(
            &arguments.file.display().to_string(),
            ReceiverStream::new(receiver),
        )
        .await;
    reader.abort();
    // Whatever the daemon makes of half an archive, the reason is that the file could not be read.
    if let Some(source) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(ImageError::Read {
            path: arguments.file,
            source,
        });
    }
    let mut out = io::stdout().lock();
    for image in result? {
        let id = table::short(&image.id);
        for name in names(&image) {
            table::unless_closed(writeln!(out, "{name} {id}"))?;
        }
    }
    Ok(0)
}

/// What the image is called now: by its tags, for want of them by its digests, for want of these by its id.
fn names(image: &ImportedImage) -> &[String] {
    [&image.repo_tags, &image.repo_digests]
        .into_iter()
        .find(|names| !names.is_empty())
        .map_or_else(|| std::slice::from_ref(&image.id), Vec::as_slice)
}

/// Larger pieces cost memory on both sides, smaller ones time.
const PIECE: usize = 256 << 10;

async fn open(path: &Path) -> Result<Box<dyn AsyncRead + Send + Unpin>, ImageError> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(tokio::io::stdin()));
    }
    let file = File::open(path).await.map_err(|source| ImageError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(Box::new(file))
}

/// Sends the archive until its end, the daemon's, or a read error, which is left in `failure`.
async fn send_all(
    mut archive: Box<dyn AsyncRead + Send + Unpin>,
    first: Vec<u8>,
    name: Option<String>,
    sender: mpsc::Sender<ImportRequest>,
    failure: Arc<Mutex<Option<io::Error>>>,
) {
    let mut request = ImportRequest { name, chunk: first };
    while sender.send(request).await.is_ok() {
        match piece(&mut archive).await {
            Ok(chunk) if chunk.is_empty() => return,
            Ok(chunk) => request = ImportRequest { name: None, chunk },
            Err(error) => {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return;
            }
        }
    }
}

/// The next piece; empty at the end.
async fn piece(archive: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(PIECE);
    while chunk.len() < PIECE {
        if archive.read_buf(&mut chunk).await? == 0 {
            break;
        }
    }
    Ok(chunk)
}
