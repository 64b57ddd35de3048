//! The client side of the OCI distribution API (distribution-spec, "Pull").
//!
//! hosts.toml decides whom to ask (`hosts`), each of them is a `client`, and `fetch` gets manifests and blobs from the first that
//! has them.

mod auth;
mod body;
mod client;
mod connect;
mod dial;
mod encoding;
mod fetch;
mod hosts;
mod hosts_file;
mod p521;
mod proxy;
mod tls;

pub use auth::{Auth, AuthError};
pub(crate) use fetch::Repository;
pub use hosts::HostsError;
use hyper::StatusCode;
pub use proxy::ProxyError;
pub use tls::TlsError;

use crate::Kind;
use crate::chain::chain;
use crate::digest::Digest;

/// Why a registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The host configuration is wrong.
    #[error("registry configuration")]
    Hosts(#[from] HostsError),
    /// The credentials cannot be used.
    #[error("credentials")]
    Auth(#[from] AuthError),
    /// TLS cannot be set up.
    #[error("registry configuration")]
    Tls(#[from] TlsError),
    /// The environment names a proxy that cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// No host may be asked.
    #[error("no host for {name} has the capability that is needed (see hosts.toml)")]
    NoHost {
        /// The repository.
        name: String,
    },
    /// Every host failed.
    #[error("{}", each(.0))]
    All(Vec<(String, RegistryError)>),
    /// A URL cannot be built.
    #[error("{url:?} is not a URL")]
    BadUrl {
        /// The text.
        url: String,
    },
    /// The request could not be sent or answered.
    #[error("GET {url}")]
    Request {
        /// Where.
        url: String,
        /// Why.
        source: hyper_util::client::legacy::Error,
    },
    /// The body broke off.
    #[error("GET {url}")]
    Body {
        /// Where.
        url: String,
        /// Why.
        source: hyper::Error,
    },
    /// The body is not in the encoding that its header says.
    #[error("GET {url}: Content-Encoding")]
    Encoding {
        /// Where.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing came.
    #[error("GET {url}: nothing received for {seconds} s")]
    Timeout {
        /// Where.
        url: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The registry refused.
    #[error("GET {url}: {status} {words}")]
    Status {
        /// Where.
        url: String,
        /// HTTP status.
        status: StatusCode,
        /// What the registry said.
        words: String,
    },
    /// Redirected in a circle.
    #[error("GET {url}: too many redirects")]
    Redirects {
        /// Where it began.
        url: String,
    },
    /// Redirected to something that is no URL or not as safe.
    #[error("GET {url}: redirect to {location:?} is not followed")]
    BadRedirect {
        /// Where.
        url: String,
        /// To what.
        location: String,
    },
    /// The token service's address is not usable.
    #[error("{host} names {realm:?} as its token service, which is not used")]
    BadRealm {
        /// The registry.
        host: String,
        /// The address.
        realm: String,
    },
    /// The token service's answer has no token.
    #[error("token service {realm}: no token in its answer")]
    BadToken {
        /// Its address.
        realm: String,
    },
    /// A document is too large.
    #[error("GET {url}: more than {limit} bytes")]
    TooLarge {
        /// Where.
        url: String,
        /// Limit in bytes.
        limit: u64,
    },
    /// A blob is too large.
    #[error("blob {digest} has {size} bytes, at most {limit} are allowed")]
    BlobTooLarge {
        /// Which.
        digest: Digest,
        /// From its descriptor.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// The content is not what its name says.
    #[error("{host} sent content with digest {found} for {expected}")]
    Digest {
        /// Who sent it.
        host: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The content is longer or shorter than its descriptor says.
    #[error("{host} sent {found} bytes for {digest}, the manifest says {expected}")]
    Size {
        /// Who sent it.
        host: String,
        /// Which blob.
        digest: Digest,
        /// Bytes sent or announced.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// The connection ended early.
    #[error("{host} closed the connection after {received} of {size} bytes of {digest}")]
    Short {
        /// Who.
        host: String,
        /// Which blob.
        digest: Digest,
        /// Bytes so far.
        received: u64,
        /// Bytes expected.
        size: u64,
    },
    /// The receiver stopped; its error is the one to report.
    #[error("the receiver stopped")]
    Unwanted,
}

impl RegistryError {
    /// Asking the same host again may help.
    fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Request { .. } | Self::Body { .. } | Self::Timeout { .. } | Self::Short { .. }
        )
    }

    /// The host cannot be reached.
    fn is_connect(&self) -> bool {
        matches!(self, Self::Request { source, .. } if source.is_connect())
    }

    /// The TLS handshake failed; it will again.
    fn is_tls(&self) -> bool {
        let Self::Request { source, .. } = self else {
            return false;
        };
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(source);
        while let Some(error) = next {
            if error.is::<rustls::Error>() {
                return true;
            }
            // An io::Error shows what it wraps only to those who ask this way.
            let wrapped = error
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref);
            if wrapped.is_some_and(|wrapped| wrapped.is::<rustls::Error>()) {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// Names the host in an error of a body.
    fn at(mut self, host: &str) -> Self {
        if let Self::Body { url, .. }
        | Self::Timeout { url, .. }
        | Self::TooLarge { url, .. }
        | Self::Encoding { url, .. } = &mut self
        {
            host.clone_into(url);
        }
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hosts(_)
            | Self::Auth(_)
            | Self::Tls(_)
            | Self::Proxy(_)
            | Self::NoHost { .. }
            | Self::BlobTooLarge { .. } => Kind::InvalidArgument,
            Self::Status { status, .. } => match status.as_u16() {
                401 | 403 => Kind::Unauthorized,
                404 => Kind::NotFound,
                _ => Kind::Unavailable, // of all numbers that HTTP has
            },
            Self::Digest { .. } | Self::Size { .. } | Self::TooLarge { .. } | Self::Encoding { .. } => {
                Kind::Corrupt
            }
            // What the registry itself said counts most; it is asked last.
            Self::All(all) => all.last().map_or(Kind::Unavailable, |(_, error)| error.kind()),
            Self::BadUrl { .. }
            | Self::Request { .. }
            | Self::Body { .. }
            | Self::Timeout { .. }
            | Self::Redirects { .. }
            | Self::BadRedirect { .. }
            | Self::BadRealm { .. }
            | Self::BadToken { .. }
            | Self::Short { .. }
            | Self::Unwanted => Kind::Unavailable,
        }
    }
}

fn each(all: &[(String, RegistryError)]) -> String {
    all.iter()
        .map(|(host, error)| format!("{host}: {}", chain(error)))
        .collect::<Vec<_>>()
        .join("; ")
}
