//! Fetches manifests and blobs of one repository, mirrors first, digests verified while the data passes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::{Body as _, Bytes};
use hyper::{HeaderMap, StatusCode, Uri};
use tokio::sync::mpsc;

use super::body::{decode, next_chunk, read_all};
use super::client::{Client, Wanted};
use super::encoding::{Decoder, pieces};
use super::{RegistryError, auth, hosts};
use crate::chain::chain;
use crate::digest::{Digest, Hasher};
use crate::manifest::{Descriptor, MANIFEST_TYPES};
use crate::reference::Reference;

/// How often a broken download of one blob is taken up again without any new data.
const RESUMES_MAX: u32 = 5;
const RESUME_WAIT: Duration = Duration::from_millis(300);

/// The hosts that serve one repository.
pub(crate) struct Repository {
    hosts: Vec<Mirror>,
    name: String,
}

struct Mirror {
    client: Client,
    /// Could not be reached in this pull: asked last from then on.
    down: AtomicBool,
}

/// Receives a blob; the empty chunk is its verified end.
pub(crate) type Sink = mpsc::Sender<io::Result<Bytes>>;

impl Repository {
    /// Reads the host configuration and checks the credentials; nothing is sent yet.
    pub(crate) fn open(
        reference: &Reference,
        auth: Option<&auth::Auth>,
        config_directory: &std::path::Path,
    ) -> Result<Self, RegistryError> {
        let mut mirrors = Vec::new();
        for host in hosts::load(config_directory, reference.domain())? {
            let credentials = auth
                .map(|auth| auth::Credentials::plan(auth, reference.domain(), &host))
                .transpose()?
                .flatten();
            let client = Client::new(host, reference.repository(), credentials)?;
            mirrors.push(Mirror {
                client,
                down: AtomicBool::new(false),
            });
        }
        Ok(Self {
            hosts: mirrors,
            name: reference.name(),
        })
    }

    /// Fetches a manifest or index by tag or digest.
    pub(crate) async fn manifest(
        &self,
        target: &str,
        limit: u64,
    ) -> Result<(Vec<u8>, Digest), RegistryError> {
        let expected = Digest::parse(target).ok();
        let path = format!("manifests/{target}");
        let accept = MANIFEST_TYPES.join(", ");
        let wanted = Wanted {
            path: &path,
            accept: &accept,
            from: 0,
            head: false,
        };
        let mut failures = Failures::default();
        for mirror in self.order(expected.is_none()) {
            let fetched = manifest_from(&mirror.client, &wanted, expected.as_ref(), limit).await;
            match fetched {
                Ok(found) => return Ok(found),
                Err(error) => failures.add(mirror, error),
            }
        }
        Err(failures.into_error(&self.name))
    }

    /// Asks for the digest of a manifest or index without fetching it; `None` when nobody tells, whatever the reason.
    pub(crate) async fn resolve(&self, target: &str) -> Option<Digest> {
        let path = format!("manifests/{target}");
        let accept = MANIFEST_TYPES.join(", ");
        let wanted = Wanted {
            path: &path,
            accept: &accept,
            from: 0,
            head: true,
        };
        let mirror = *self.order(true).first()?;
        let response = mirror.client.get(&wanted).await.ok()?;
        digest_of(response.headers())
    }

    /// Fetches a small blob into memory.
    pub(crate) async fn small_blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        if let Some(size) = blob.size.filter(|size| *size > limit) {
            let digest = blob.digest.clone();
            return Err(RegistryError::BlobTooLarge { digest, size, limit });
        }
        let (sink, mut chunks): (Sink, _) = mpsc::channel(4);
        let collect = async {
            let mut bytes = Vec::new();
            while let Some(Ok(chunk)) = chunks.recv().await {
                bytes.extend_from_slice(&chunk);
            }
            bytes
        };
        let fetch = async { self.blob(blob, limit, sink).await };
        let (fetched, bytes) = tokio::join!(fetch, collect);
        fetched.map(|()| bytes)
    }

    /// Streams a blob of at most `limit` bytes into `sink`. A connection that breaks is taken up where it broke, on this or the next host.
    pub(crate) async fn blob(&self, blob: &Descriptor, limit: u64, sink: Sink) -> Result<(), RegistryError> {
        let mut download = Download {
            digest: &blob.digest,
            size: blob.size,
            limit,
            sink,
            received: 0,
            encoded: false,
            hasher: Some(blob.digest.hasher()),
        };
        let path = format!("blobs/{}", blob.digest);
        let mut failures = Failures::default();
        let elsewhere = self.elsewhere(blob);
        for mirror in self.order(false).into_iter().chain(&elsewhere) {
            match download.from(&mirror.client, &path).await {
                Ok(()) => return download.finish(&mirror.client).await,
                Err(RegistryError::Unwanted) => return Err(RegistryError::Unwanted),
                // What has been passed on cannot be taken back.
                Err(error @ RegistryError::Size { .. }) if download.received > 0 => return Err(error),
                Err(error) => failures.add(mirror, error),
            }
        }
        Err(failures.into_error(&self.name))
    }

    /// Where a layer may be that registries need not keep, when `hosts.toml` allows to ask there.
    fn elsewhere(&self, blob: &Descriptor) -> Vec<Mirror> {
        let server = |url: &String| {
            let client = Client::of_address(url).inspect_err(|error| {
                tracing::warn!(error = chain(error), "an address of a layer is not asked");
            });
            Some(Mirror {
                client: client.ok()?,
                down: AtomicBool::new(false),
            })
        };
        match self.hosts.iter().any(|mirror| mirror.client.host.layer_urls) {
            true => blob.urls.iter().filter_map(server).collect(),
            false => Vec::new(),
        }
    }

    /// Hosts with the capability, those that do not answer last.
    fn order(&self, resolve: bool) -> Vec<&Mirror> {
        let able = |mirror: &&Mirror| {
            if resolve {
                mirror.client.host.resolve
            } else {
                mirror.client.host.pull
            }
        };
        let mut order: Vec<&Mirror> = self.hosts.iter().filter(able).collect();
        order.sort_by_key(|mirror| mirror.down.load(Ordering::Relaxed));
        order
    }
}

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    let value = headers.get("docker-content-digest")?;
    Digest::parse(value.to_str().ok()?).ok()
}

async fn manifest_from(
    client: &Client,
    wanted: &Wanted<'_>,
    expected: Option<&Digest>,
    limit: u64,
) -> Result<(Vec<u8>, Digest), RegistryError> {
    let response = client.get(wanted).await?;
    let header = digest_of(response.headers());
    let uri = Uri::default();
    let at_host = |error: RegistryError| error.at(&client.host.authority);
    let headers = response.headers().clone();
    let mut bytes = read_all(&uri, response, limit).await.map_err(at_host)?;
    if !expected
        .or(header.as_ref())
        .is_some_and(|digest| digest.matches(&bytes))
    {
        bytes = decode(&uri, &headers, bytes, limit).map_err(at_host)?;
    }
    for expected in expected.into_iter().chain(header.as_ref()) {
        if !expected.matches(&bytes) {
            return Err(RegistryError::Digest {
                host: client.host.authority.clone(),
                expected: expected.clone(),
                found: Digest::of(&bytes),
            });
        }
    }
    let digest = expected.cloned().unwrap_or_else(|| Digest::of(&bytes));
    Ok((bytes, digest))
}

/// A blob on its way.
struct Download<'a> {
    digest: &'a Digest,
    /// From the descriptor, or from the first answer when that does not tell.
    size: Option<u64>,
    limit: u64,
    sink: Sink,
    received: u64,
    /// The host encodes what it sends: then no byte of it is one of the blob's, and it is asked for all again.
    encoded: bool,
    hasher: Option<Hasher>,
}

impl Download<'_> {
    /// Downloads what is missing from one host.
    async fn from(&mut self, client: &Client, path: &str) -> Result<(), RegistryError> {
        let mut stalled = 0;
        loop {
            let before = self.received;
            let error = match self.attempt(client, path).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            stalled = if self.received > before { 0 } else { stalled + 1 };
            if stalled > RESUMES_MAX || error.is_connect() {
                return Err(error);
            }
            tokio::time::sleep(RESUME_WAIT * (stalled + 1)).await;
        }
    }

    async fn attempt(&mut self, client: &Client, path: &str) -> Result<(), RegistryError> {
        if self.size == Some(self.received) {
            return Ok(());
        }
        let wanted = Wanted {
            path,
            accept: "*/*",
            from: if self.encoded { 0 } else { self.received },
            head: false,
        };
        let response = client.get(&wanted).await?;
        // A server that ignores the range sends everything again.
        let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT {
            0
        } else {
            self.received
        };
        let mut announced = response.body().size_hint().exact();
        // An object that is stored compressed may be sent with a header that says so: it is the blob all the same.
        let mut decoder = match announced {
            Some(size) if self.size.is_none_or(|own| own == size) => None,
            _ => Decoder::of(response.headers()).map_err(|source| encoding(client, source))?,
        };
        self.encoded = decoder.is_some();
        if decoder.is_some() {
            announced = None;
        }
        let mut body = response.into_body();
        let total = announced.map(|size| self.received.saturating_sub(skip).saturating_add(size));
        if let Some(total) = total.filter(|total| *total != *self.size.get_or_insert(*total)) {
            return Err(self.wrong_size(client, total));
        }
        let uri = Uri::default();
        let at_host = |error: RegistryError| error.at(&client.host.authority);
        while let Some(chunk) = next_chunk(&uri, &mut body).await.map_err(at_host)? {
            let Some(decoder) = &mut decoder else {
                self.take(client, chunk, &mut skip).await?;
                continue;
            };
            for piece in pieces(&chunk) {
                let decoded = decoder.push(piece).map_err(|source| encoding(client, source))?;
                self.take(client, decoded.into(), &mut skip).await?;
            }
        }
        if let Some(mut decoder) = decoder {
            let decoded = decoder.end().map_err(|source| encoding(client, source))?;
            self.take(client, decoded.into(), &mut skip).await?;
        }
        let size = *self.size.get_or_insert(self.received);
        if self.received < size {
            // The server closed early without saying so.
            return Err(RegistryError::Short {
                host: client.host.authority.clone(),
                digest: self.digest.clone(),
                received: self.received,
                size,
            });
        }
        Ok(())
    }

    /// Takes a chunk whose first bytes, as far as `skip` goes, have been taken before.
    async fn take(&mut self, client: &Client, mut chunk: Bytes, skip: &mut u64) -> Result<(), RegistryError> {
        let drop = usize::try_from(*skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
        *skip -= drop as u64;
        chunk = chunk.slice(drop..);
        if chunk.is_empty() {
            return Ok(());
        }
        self.received = self.received.saturating_add(chunk.len() as u64);
        if self.received > self.size.unwrap_or(self.limit).min(self.limit) {
            return Err(self.wrong_size(client, self.received));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        self.sink
            .send(Ok(chunk))
            .await
            .map_err(|_| RegistryError::Unwanted)
    }

    fn wrong_size(&self, client: &Client, found: u64) -> RegistryError {
        RegistryError::Size {
            host: client.host.authority.clone(),
            digest: self.digest.clone(),
            found,
            expected: self.size.unwrap_or(self.limit),
        }
    }

    /// Verifies the digest and tells the receiver that this was all.
    async fn finish(mut self, client: &Client) -> Result<(), RegistryError> {
        let found = self.hasher.take().map(Hasher::finish);
        if let Some(found) = found.filter(|found| found != self.digest) {
            return Err(RegistryError::Digest {
                host: client.host.authority.clone(),
                expected: self.digest.clone(),
                found,
            });
        }
        self.sink
            .send(Ok(Bytes::new()))
            .await
            .map_err(|_| RegistryError::Unwanted)
    }
}

fn encoding(client: &Client, source: io::Error) -> RegistryError {
    RegistryError::Encoding {
        url: client.host.authority.clone(),
        source,
    }
}

/// What the hosts said, in order.
#[derive(Default)]
struct Failures(Vec<(String, RegistryError)>);

impl Failures {
    fn add(&mut self, mirror: &Mirror, error: RegistryError) {
        if error.is_connect() {
            mirror.down.store(true, Ordering::Relaxed);
        }
        self.0.push((mirror.client.host.authority.clone(), error));
    }

    /// One error as it is; several together, in order.
    fn into_error(mut self, name: &str) -> RegistryError {
        match self.0.len() {
            0 => RegistryError::NoHost {
                name: name.to_owned(),
            },
            1 => self.0.remove(0).1,
            _ => RegistryError::All(self.0),
        }
    }
}
