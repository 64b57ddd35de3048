//! Pulls one image into a directory and says how long it took: `pull REFERENCE ROOT [REGISTRY-CONFIG-DIR]`.

use std::path::PathBuf;
use std::time::Instant;

use coracle_images::{Options, Reference, Store};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(root)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull REFERENCE ROOT [REGISTRY-CONFIG-DIR]".into());
    };
    let certs = arguments
        .next()
        .map_or_else(|| PathBuf::from("/etc/coracle/certs.d"), PathBuf::from);
    let store = Store::open(&PathBuf::from(root), Options::default(), &[])?;
    let start = Instant::now();
    let image = store.pull(&Reference::parse(&name)?, None, &certs).await?;
    let pulled = start.elapsed();
    store.flush().await;
    let usage = store.usage();
    println!("{} {}", image.id, image.repo_digests.join(" "));
    println!(
        "{} layers, {} MB, {} inodes: pulled in {} ms, on disk after {} ms",
        image.layers.len(),
        usage.bytes / 1_000_000,
        usage.inodes,
        pulled.as_millis(),
        start.elapsed().as_millis()
    );
    Ok(())
}
